//! The picture of a run: training and held-out loss over tokens.

use std::path::Path;
use std::sync::OnceLock;

use plotters::prelude::*;
use plotters::style::register_font;

use crate::metrics::Metric;
use crate::{Error, Result};

const WIDTH: u32 = 1200;
const HEIGHT: u32 = 720;
const FONT: &str = "imaginal-sans";
const TRAIN: RGBColor = RGBColor(0x1F, 0x6F, 0xB4);
const HELD_OUT: RGBColor = RGBColor(0xD9, 0x5F, 0x02);
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const GRID: RGBColor = RGBColor(0xE4, 0xE4, 0xE4);

/// Draws the losses of a run into a PNG. Nothing is drawn before there are two points.
///
/// # Errors
/// The picture cannot be drawn or written.
pub fn draw_curve(metrics: &[Metric], title: &str, path: &Path) -> Result<()> {
    let train: Vec<(f64, f64)> = metrics.iter().filter_map(|m| Some((m.tokens as f64, m.loss?))).collect();
    let held_out: Vec<(f64, f64)> = metrics.iter().filter_map(|m| Some((m.tokens as f64, m.held_out_loss?))).collect();
    if train.len() < 2 {
        return Ok(());
    }
    let mut pixels = vec![0u8; (WIDTH * HEIGHT * 3) as usize];
    let bits = metrics.iter().rev().find_map(|m| m.held_out_bits_per_byte);
    paint(&mut pixels, &train, &held_out, bits, title)
        .map_err(|problem| Error::Picture { path: path.to_path_buf(), problem })?;
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, WIDTH, HEIGHT);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(&pixels))
        .map_err(|e| Error::Picture { path: path.to_path_buf(), problem: e.to_string() })?;
    Ok(imaginal_files::write_atomic(path, &png)?)
}

fn paint(
    pixels: &mut [u8],
    train: &[(f64, f64)],
    held_out: &[(f64, f64)],
    bits: Option<f64>,
    title: &str,
) -> std::result::Result<(), String> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    if !REGISTERED.get_or_init(|| register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).is_ok()) {
        return Err("the embedded font is damaged".into());
    }
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let all = || train.iter().chain(held_out).map(|p| p.1);
    let (low, high) = all().fold((f64::MAX, f64::MIN), |(l, h), y| (l.min(y), h.max(y)));
    // The first steps fall off a cliff; the room belongs to the rest.
    let mut sorted: Vec<f64> = all().collect();
    sorted.sort_by(f64::total_cmp);
    let most = sorted[(sorted.len() - 1) * 98 / 100];
    let top = (most + 0.15 * (most - low)).min(high + 0.05 * (high - low).max(0.1)).max(low + 0.1);
    let bottom = (low - 0.06 * (top - low)).max(0.0);
    let end = train.last().map_or(1.0, |p| p.0).max(1.0);

    let root = BitMapBackend::with_buffer(pixels, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE).map_err(|e| text(&e))?;
    let font = |size: i32| (FONT, size).into_font().color(&INK);
    let mut chart = ChartBuilder::on(&root)
        .margin(24)
        .margin_right(40)
        .caption(title, font(26))
        .x_label_area_size(58)
        .y_label_area_size(74)
        .build_cartesian_2d(0.0..end, bottom..top)
        .map_err(|e| text(&e))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .label_style(font(17))
        .axis_desc_style(font(19))
        .x_desc("training tokens")
        .y_desc("cross-entropy, nats per token")
        .x_labels(9)
        .y_labels(9)
        .x_label_formatter(&|x| tokens_label(*x))
        .y_label_formatter(&|y| format!("{y:.2}"))
        .draw()
        .map_err(|e| text(&e))?;
    let clip = |points: &[(f64, f64)]| points.iter().map(|&(x, y)| (x, y.min(top))).collect::<Vec<_>>();
    chart.draw_series(LineSeries::new(clip(train), TRAIN.mix(0.22))).map_err(|e| text(&e))?;
    let smooth = smoothed(train);
    let last = |points: &[(f64, f64)], n: usize| points.iter().rev().take(n).map(|p| p.1).sum::<f64>() / n as f64;
    chart
        .draw_series(LineSeries::new(clip(&smooth), TRAIN.stroke_width(3)))
        .map_err(|e| text(&e))?
        .label(format!("training {:.3}", last(train, (train.len() / 50).max(1))))
        .legend(|(x, y)| PathElement::new([(x, y), (x + 26, y)], TRAIN.stroke_width(3)));
    if !held_out.is_empty() {
        let bits = bits.map_or(String::new(), |b| format!(" ({b:.3} bits per byte)"));
        chart
            .draw_series(LineSeries::new(clip(held_out), HELD_OUT.stroke_width(3)).point_size(4))
            .map_err(|e| text(&e))?
            .label(format!("held out {:.3}{bits}", last(held_out, 1)))
            .legend(|(x, y)| PathElement::new([(x, y), (x + 26, y)], HELD_OUT.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(18)
        .legend_area_size(38)
        .border_style(GRID)
        .background_style(WHITE.mix(0.9))
        .label_font(font(18))
        .draw()
        .map_err(|e| text(&e))?;
    root.present().map_err(|e| text(&e))
}

/// A running mean over about a fiftieth of the run on either side of each point.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = (points.len() / 50).clamp(1, 200);
    let sums: Vec<f64> = std::iter::once(0.0)
        .chain(points.iter().scan(0.0, |sum, p| {
            *sum += p.1;
            Some(*sum)
        }))
        .collect();
    (0..points.len())
        .map(|i| {
            // As far to the left as to the right, so that a slope does not bend the ends.
            let reach = reach.min(i).min(points.len() - 1 - i);
            (points[i].0, (sums[i + reach + 1] - sums[i - reach]) / (2 * reach + 1) as f64)
        })
        .collect()
}

fn tokens_label(tokens: f64) -> String {
    let (scaled, unit) = match tokens {
        t if t >= 1e9 => (t / 1e9, "G"),
        t if t >= 1e6 => (t / 1e6, "M"),
        t if t >= 1e3 => (t / 1e3, "k"),
        t => (t, ""),
    };
    let digits = usize::from(scaled.fract() != 0.0);
    format!("{scaled:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn run() -> Vec<Metric> {
        (0..400u64)
            .map(|i| {
                let noise = ((i * 7919) % 101) as f64 / 400.0;
                let fall = 2.3 + 6.0 * (-(i as f64) / 40.0).exp();
                Metric {
                    step: i,
                    tokens: i * 2048,
                    loss: Some(fall + noise),
                    lr: None,
                    grad_norm: None,
                    tokens_per_second: None,
                    held_out_loss: (i % 40 == 0).then_some(fall + 0.3),
                    held_out_bits_per_byte: (i % 40 == 0).then_some(1.4),
                }
            })
            .collect()
    }

    #[test]
    fn draws_both_curves_and_writes_a_png() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loss.png");
        draw_curve(&run(), "a run", &path).unwrap();
        let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&path).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels.len(), (WIDTH * HEIGHT * 3) as usize);
        let count = |c: RGBColor| pixels.chunks(3).filter(|p| **p == [c.0, c.1, c.2]).count();
        assert!(count(TRAIN) > 1000 && count(HELD_OUT) > 1000, "{} {}", count(TRAIN), count(HELD_OUT));
        assert!(count(INK) > 200, "letters");
        if let Some(keep) = std::env::var_os("IMAGINAL_KEEP_PICTURE") {
            std::fs::copy(&path, keep).unwrap();
        }
    }

    #[test]
    fn too_little_to_draw_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loss.png");
        draw_curve(&run()[..1], "a run", &path).unwrap();
        assert!(!path.exists());
        draw_curve(&run()[..2], "a run", &path).unwrap();
        assert!(path.exists());
    }

    #[test]
    fn labels_are_short() {
        assert_eq!(
            ["0", "500", "1.5k", "2M", "3.5G"].map(String::from),
            [0.0, 500.0, 1500.0, 2e6, 3.5e9].map(tokens_label)
        );
    }
}
