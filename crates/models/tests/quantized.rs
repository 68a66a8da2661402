//! Checkpoints whose matrices are in FP8 or MXFP4: what becomes of them, and what is refused.

use std::path::{Path, PathBuf};

use imaginal_models::{LoadOptions, Loaded};
use imaginal_nn::{Module, Slot};
use imaginal_numeric::Format;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Loads a fixture whose config.json has had one text replaced.
fn changed(name: &str, from: &str, to: &str) -> imaginal_models::Result<Loaded> {
    let scratch = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(fixture(name).join("config.json")).unwrap();
    let config: String = config.chars().filter(|c| !c.is_whitespace()).collect();
    assert!(config.contains(from), "{config}");
    std::fs::write(scratch.path().join("config.json"), config.replace(from, to)).unwrap();
    std::fs::copy(fixture(name).join("model.safetensors"), scratch.path().join("model.safetensors")).unwrap();
    Loaded::open(scratch.path(), &LoadOptions::default())
}

#[test]
fn mxfp4_stays_as_it_is() {
    let loaded = changed("gpt_oss-mxfp4", "{", "{").unwrap();
    let (mut kept, mut others) = (0, 0);
    loaded.model.slots("", &mut |name, slot| {
        if let Slot::Weight(weight) = slot {
            let is = weight.format() == Format::MXFP4 && weight.master().is_none();
            assert_eq!(is, name.contains("_exps"), "{name}: {}", weight.format());
            if is { kept += 1 } else { others += 1 }
        }
    });
    assert!(kept == 3 * loaded.model.config().layers().len() && others > 0);
    assert!(loaded.notes.is_empty());
}

#[test]
fn fp8_is_expanded_and_says_so() {
    let loaded = changed("deepseek_v3-fp8", "{", "{").unwrap();
    assert!(loaded.notes.iter().any(|note| note.contains("FP8") && note.contains("f32")), "{:?}", loaded.notes);
    loaded.model.slots("", &mut |name, slot| {
        if let Slot::Weight(weight) = slot {
            let expanded = weight.format() == Format::F32;
            assert_eq!(expanded, name != "token_embd.weight" && name != "output.weight", "{name}: {}", weight.format());
        }
    });
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    for (name, from, to, expected) in [
        ("deepseek_v3-fp8", "[128,128]", "[64,128]", "weight_scale_inv have shape"),
        ("deepseek_v3-fp8", "[128,128]", "[0,128]", "weight_block_size: not the rows and columns of a block"),
        ("deepseek_v3-fp8", "[128,128]", "[128]", "weight_block_size: not the rows and columns of a block"),
        ("deepseek_v3-fp8", "\"fp8\"", "\"gptq\"", "gptq is not supported, only fp8 and mxfp4 are"),
        ("deepseek_v3-fp8", "\"fp8\"", "\"mxfp4\"", "F8_E4M3 is no format for weights"),
        (
            "gpt_oss-mxfp4",
            "\"num_local_experts\":4",
            "\"num_local_experts\":5",
            "down_proj_blocks: its shape is [4, 32",
        ),
        (
            "gpt_oss-mxfp4",
            "\"hidden_size\":32",
            "\"hidden_size\":40",
            "gate_up_proj_blocks: its shape is [4, 64, 1, 16]",
        ),
        ("gpt_oss-mxfp4", "\"intermediate_size\":32", "\"intermediate_size\":31", "gate_up_proj_scales: its shape is"),
    ] {
        let message = changed(name, from, to).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(expected), "{name} with {to}: {message}");
    }
}
