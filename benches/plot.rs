//! The curves of the scaling benchmark, one small plot each.

use crate::Series;
use plotters::prelude::*;
use std::path::Path;

const WIDE: u32 = 480;
const HIGH: u32 = 320;

/// Draws all series into one SVG, both axes logarithmic: a straight line that rises with the
/// diagonal grows in proportion, a flat one not at all.
pub fn draw(path: &Path, all: &[Series]) {
    let rows = all.len().div_ceil(2);
    let root = SVGBackend::new(path, (2 * WIDE, rows as u32 * HIGH)).into_drawing_area();
    root.fill(&WHITE).unwrap();
    for (area, series) in root.split_evenly((rows, 2)).iter().zip(all) {
        one(area, series);
    }
    root.present().unwrap();
}

fn one(area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>, series: &Series) {
    // A logarithm has no zero.
    let ours: Vec<(f64, f64)> = series.points.iter().map(|p| (p.0.max(1.0), p.2)).collect();
    let kernel: Vec<(f64, f64)> =
        series.points.iter().filter_map(|p| Some((p.0.max(1.0), p.1?))).collect();
    let values = || ours.iter().chain(&kernel);
    let most = |by: fn(&(f64, f64)) -> f64| values().map(by).fold(f64::MIN, f64::max);
    let least = |by: fn(&(f64, f64)) -> f64| values().map(by).fold(f64::MAX, f64::min);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .caption(series.name, ("sans-serif", 14))
        .x_label_area_size(28)
        .y_label_area_size(52)
        .build_cartesian_2d(
            (least(|p| p.0)..most(|p| p.0) * 1.1).log_scale(),
            (least(|p| p.1) / 2.0..most(|p| p.1) * 2.0).log_scale(),
        )
        .unwrap();
    chart.configure_mesh().y_desc(series.unit).light_line_style(WHITE).draw().unwrap();
    for (name, points, colour) in [("the kernel's file mode", kernel, &BLACK), ("ours", ours, &RED)]
    {
        if points.is_empty() {
            continue;
        }
        let line = chart.draw_series(LineSeries::new(points.clone(), colour)).unwrap();
        line.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        chart.draw_series(points.iter().map(|p| Circle::new(*p, 3, colour.filled()))).unwrap();
    }
    chart
        .configure_series_labels()
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE)
        .position(SeriesLabelPosition::UpperLeft)
        .draw()
        .unwrap();
}
