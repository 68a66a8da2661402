use clap::Parser;
use imaginal_kernels::packed::kernels;
use imaginal_numeric::Format;
use serde_json::json;

use crate::cli::{Common, Failure};

/// List the number formats: bits, error, and the kernels this CPU uses
#[derive(Parser, Debug)]
#[command(
    long_about = "List the number formats: bits per weight, the error on numbers of a normal distribution (root of the mean square, relative), and what this CPU multiplies them with, for few tokens (generation) and for many (prompts; where that is int8 tiles, it is so for feed-forward layers, and attention's matrices take bf16 tiles)",
    after_help = "Examples:\n  imaginal formats\n  IMAGINAL_ISA=avx2 imaginal formats --json"
)]
pub struct Formats {}

impl Formats {
    /// Runs the verb.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
        let normal = normal(1 << 16);
        let mut rows = Vec::new();
        for format in Format::all() {
            let bits = format.block_bytes() as f64 * 8.0 / format.block_len() as f64;
            let (few, many) = kernels(format);
            rows.push((format, bits, error(format, &normal)?, few, many));
        }
        if common.json {
            let rows: Vec<_> = rows
                .iter()
                .map(|(f, bits, error, few, many)| {
                    json!({ "name": f.name(), "bits": bits, "block": f.block_len(), "ggml_type": f.info().ggml_type,
                        "relative_rmse": error, "few_tokens": few, "many_tokens": many, "about": f.info().doc })
                })
                .collect();
            println!("{}", serde_json::to_string_pretty(&json!({ "formats": rows }))?);
            return Ok(());
        }
        println!(
            "{:8} {:>7} {:>6} {:>10}  {:16} {:16}",
            "format", "bits", "block", "error", "few tokens", "many tokens"
        );
        for (f, bits, error, few, many) in rows {
            println!("{:8} {bits:>7.4} {:>6} {error:>10.6}  {few:16} {many:16}", f.name(), f.block_len());
        }
        Ok(())
    }
}

/// Numbers of the standard normal distribution, the same every time.
fn normal(n: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    // Box and Muller, 1958.
    (0..n).map(|_| ((-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32).collect()
}

/// Root of the mean squared error over root of the mean square.
fn error(format: Format, values: &[f32]) -> Result<f64, Failure> {
    let size = format.bytes_for(values.len()).ok_or("the sample is not whole blocks")?;
    let (mut bytes, mut back) = (vec![0; size], vec![0.0; values.len()]);
    format.encode(values, &mut bytes)?;
    format.decode(&bytes, &mut back)?;
    let sum =
        |f: &dyn Fn(f32, f32) -> f32| values.iter().zip(&back).map(|(a, b)| f64::from(f(*a, *b)).powi(2)).sum::<f64>();
    Ok((sum(&|a, b| a - b) / sum(&|a, _| a)).sqrt())
}
