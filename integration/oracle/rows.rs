//! The table of rows, in groups: each group is a test.
pub mod large;
pub mod names;
pub mod places;
pub mod privileges;
pub mod processes;

/// A row is found by its name.
#[test]
fn no_two_rows_have_one_name() {
    let groups = [names::rows, places::rows, processes::rows, privileges::rows, large::rows];
    let mut all: Vec<_> = groups.iter().flat_map(|rows| rows()).map(|row| row.name).collect();
    all.sort();
    assert!(all.windows(2).all(|two| two[0] != two[1]), "{all:?}");
}
