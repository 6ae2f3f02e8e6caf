//! The table of rows.
mod large;
mod names;
mod places;
mod privileges;
mod processes;

use super::row::Row;

/// Every row, in the order in which they are run.
pub fn all() -> Vec<Row> {
    let all: Vec<_> =
        [names::rows(), places::rows(), processes::rows(), privileges::rows(), large::rows()]
            .into_iter()
            .flatten()
            .collect();
    for (index, row) in all.iter().enumerate() {
        assert!(
            all[..index].iter().all(|other| other.name != row.name),
            "two rows are named {}",
            row.name
        );
    }
    all
}
