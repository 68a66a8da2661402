//! Which format each matrix of a model gets.
//!
//! The mixes are those that users of llama.cpp know by name: a base format, and a wider one for the matrices whose errors
//! cost most (the values, the way down out of the feed-forward, the output).

use imaginal_numeric::Format;

/// A way to choose formats: one format throughout, or a mix.
#[derive(Debug)]
pub struct Recipe {
    /// Its name, for instance `"q4_k_m"`.
    pub name: &'static str,
    /// The number that GGUF files give it (`general.file_type`), for those that have one.
    pub file_type: Option<u32>,
    /// The format of most matrices.
    pub base: Format,
    mix: Mix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mix {
    /// The base format throughout.
    Pure,
    /// The smallest of a base.
    Small,
    Medium,
    Large,
}

macro_rules! recipes {
    ($($name:literal $file_type:expr, $base:ident $mix:ident;)*) => {
        &[$(Recipe { name: $name, file_type: $file_type, base: Format::$base, mix: Mix::$mix }),*]
    };
}

/// All recipes.
pub static RECIPES: &[Recipe] = recipes! {
    "f32" Some(0), F32 Pure;
    "f16" Some(1), F16 Pure;
    "bf16" Some(32), BF16 Pure;
    "q8_0" Some(7), Q8_0 Pure;
    "q6_k" Some(18), Q6_K Pure;
    "q5_k" None, Q5_K Pure;
    "q5_k_m" Some(17), Q5_K Medium;
    "q5_k_s" Some(16), Q5_K Small;
    "q5_1" Some(9), Q5_1 Pure;
    "q5_0" Some(8), Q5_0 Pure;
    "q4_k" None, Q4_K Pure;
    "q4_k_m" Some(15), Q4_K Medium;
    "q4_k_s" Some(14), Q4_K Small;
    "q4_1" Some(3), Q4_1 Pure;
    "q4_0" Some(2), Q4_0 Pure;
    "iq4_nl" Some(25), IQ4_NL Pure;
    "iq4_xs" Some(30), IQ4_XS Pure;
    "mxfp4" Some(38), MXFP4 Pure;
    "nvfp4" Some(39), NVFP4 Pure;
    "q3_k" None, Q3_K Pure;
    "q3_k_l" Some(13), Q3_K Large;
    "q3_k_m" Some(12), Q3_K Medium;
    "q3_k_s" Some(11), Q3_K Small;
    "iq3_s" Some(26), IQ3_S Pure;
    "iq3_xxs" Some(23), IQ3_XXS Pure;
    "q2_k" Some(10), Q2_K Medium;
    "q2_k_s" Some(21), Q2_K Small;
    "iq2_s" Some(28), IQ2_S Pure;
    "iq2_xs" Some(20), IQ2_XS Pure;
    "iq2_xxs" Some(19), IQ2_XXS Pure;
    "tq2_0" Some(37), TQ2_0 Pure;
    "tq1_0" Some(36), TQ1_0 Pure;
    "iq1_m" Some(31), IQ1_M Pure;
    "iq1_s" Some(24), IQ1_S Pure;
};

/// What a recipe needs to know of a model.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Its layers.
    pub layers: usize,
    /// Query heads that share one key and value head.
    pub grouped: usize,
}

impl Recipe {
    /// The recipe of that name, in any letter case.
    pub fn from_name(name: &str) -> Option<&'static Recipe> {
        RECIPES.iter().find(|r| r.name.eq_ignore_ascii_case(name))
    }

    /// The format of a tensor, by its GGUF name and shape (outermost dimension first); `None` for one that stays as it is:
    /// vectors, norms, routers, convolutions.
    pub fn choose(&self, name: &str, shape: &[usize], model: Shape) -> Option<Format> {
        let kept = ["_norm.weight", "ffn_gate_inp", "ssm_conv1d", "shortconv.conv", "position_embd", "token_types"];
        if shape.len() < 2 || !name.ends_with("weight") || kept.iter().any(|k| name.contains(k)) {
            return None;
        }
        let cols = shape.last().copied().unwrap_or(1);
        Some(fitting(self.wanted(name, model), cols))
    }

    fn wanted(&self, name: &str, model: Shape) -> Format {
        let base = self.base;
        if name == "output.weight" || name == "token_embd.weight" {
            // Every token passes these.
            return if bits(base) < bits(Format::Q6_K) { Format::Q6_K } else { base };
        }
        if self.mix == Mix::Pure {
            return base;
        }
        let part = name.rsplit('.').nth(1).unwrap_or_default();
        let layer =
            name.strip_prefix("blk.").and_then(|n| n.split('.').next()).and_then(|n| n.parse().ok()).unwrap_or(0);
        let eighth = model.layers / 8;
        // The first and last eighth of the layers, and every third between.
        let more = layer < eighth || layer >= 7 * model.layers / 8 || (layer - eighth) % 3 == 2;
        match (base, self.mix, part) {
            (Format::Q2_K, _, "attn_v") if model.grouped >= 4 => Format::Q4_K,
            (Format::Q2_K, Mix::Medium, "attn_v" | "attn_output" | "ffn_down" | "ffn_down_exps") => Format::Q3_K,
            (Format::Q2_K, Mix::Small, "ffn_down" | "ffn_down_exps") if layer < eighth => Format::Q4_K,
            (Format::Q3_K, Mix::Medium, "attn_v") if layer < 2 => Format::Q5_K,
            (Format::Q3_K, Mix::Medium, "attn_v" | "attn_output" | "attn_qkv") => Format::Q4_K,
            (Format::Q3_K, Mix::Medium, "ffn_down" | "ffn_down_exps") if layer < model.layers / 16 => Format::Q5_K,
            (Format::Q3_K, Mix::Medium, "ffn_down" | "ffn_down_exps") if more => Format::Q4_K,
            (Format::Q3_K, Mix::Large, "attn_v" | "attn_output" | "ffn_down" | "ffn_down_exps") => Format::Q5_K,
            (Format::Q3_K, Mix::Large, "attn_qkv") => Format::Q4_K,
            (Format::Q4_K, Mix::Medium, "attn_qkv") => Format::Q5_K,
            (Format::Q5_K, Mix::Medium, "attn_qkv") => Format::Q6_K,
            (Format::Q4_K | Format::Q5_K, Mix::Medium, "attn_v" | "ffn_down" | "ffn_down_exps") if more => Format::Q6_K,
            (Format::Q4_K, Mix::Small, "attn_v") if layer < 4 => Format::Q5_K,
            (Format::Q4_K, Mix::Small, "ffn_down" | "ffn_down_exps") if layer < eighth => Format::Q5_K,
            _ => base,
        }
    }
}

fn bits(format: Format) -> usize {
    format.block_bytes() * 8 * 256 / format.block_len()
}

/// The format itself, or where rows of `cols` are not whole blocks of it, one a little wider of which they are.
fn fitting(format: Format, cols: usize) -> Format {
    let next = |format: Format| match format {
        Format::Q4_K => Format::Q5_0,
        Format::Q5_K => Format::Q5_1,
        Format::Q6_K => Format::Q8_0,
        f if f.block_len() == 256 => Format::IQ4_NL,
        Format::NVFP4 => Format::MXFP4,
        _ => Format::F16,
    };
    let mut format = format;
    while !cols.is_multiple_of(format.block_len()) {
        format = next(format);
    }
    format
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { layers: 16, grouped: 4 };

    #[test]
    fn mixes_widen_what_costs_most() {
        let choose = |recipe: &str, name: &str| Recipe::from_name(recipe).unwrap().choose(name, &[512, 2048], SHAPE);
        assert_eq!(choose("Q4_K_M", "blk.0.attn_v.weight"), Some(Format::Q6_K));
        assert_eq!(choose("q4_k_m", "blk.2.attn_v.weight"), Some(Format::Q4_K));
        assert_eq!(choose("q4_k_m", "blk.4.ffn_down.weight"), Some(Format::Q6_K));
        assert_eq!(choose("q4_k_m", "blk.4.ffn_up.weight"), Some(Format::Q4_K));
        assert_eq!(choose("q2_k", "blk.4.ffn_down.weight"), Some(Format::Q3_K));
        assert_eq!(choose("q4_k", "blk.0.attn_v.weight"), Some(Format::Q4_K));
        assert_eq!(choose("q4_k", "output.weight"), Some(Format::Q6_K));
        assert_eq!(choose("q4_k", "blk.0.attn_norm.weight"), None);
        assert_eq!(choose("f16", "output.weight"), Some(Format::F16));
    }

    #[test]
    fn rows_that_are_no_whole_blocks_get_a_wider_format() {
        let choose =
            |recipe: &str, cols| Recipe::from_name(recipe).unwrap().choose("blk.0.ffn_up.weight", &[8, cols], SHAPE);
        assert_eq!(choose("q4_k", 224), Some(Format::Q5_0));
        assert_eq!(choose("q6_k", 224), Some(Format::Q8_0));
        assert_eq!(choose("iq2_xs", 224), Some(Format::IQ4_NL));
        assert_eq!(choose("q4_k", 100), Some(Format::F16));
        assert_eq!(choose("nvfp4", 96), Some(Format::MXFP4));
    }
}
