//! Latent attention in GGUF files of before 2025-04, which hold one matrix for keys and values and sizes of whole heads.

use imaginal_files::Gguf;
use imaginal_files::gguf::{GgufWriter, TensorSpec, Value};
use imaginal_models::{ARCHS, Config, Loaded, Model, Rows, SaveOptions};
use imaginal_numeric::Format;
use imaginal_tensor::{Device, Tensor, no_grad};

const HEADS: usize = 3;
const RANK: usize = 10;
const KEY: usize = 6;
const TURNED: usize = 8;
const VALUE: usize = 7;

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

/// For each head the rows of its key, the transposed of `attn_k_b`, then those of its value.
fn joined(k_b: &[f32], v_b: &[f32]) -> Vec<u8> {
    let mut rows = Vec::new();
    for head in 0..HEADS {
        let key = &k_b[head * RANK * KEY..(head + 1) * RANK * KEY];
        rows.extend((0..KEY).flat_map(|row| (0..RANK).map(move |col| key[col * KEY + row])));
        rows.extend(&v_b[head * VALUE * RANK..(head + 1) * VALUE * RANK]);
    }
    rows.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn logits(model: &Model) -> Vec<f32> {
    let ids = Model::ids(&[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]).unwrap();
    no_grad(|| model.forward(&ids, None, Rows::All)).unwrap().to_vec().unwrap()
}

#[test]
fn older_files_hold_one_matrix_for_keys_and_values() {
    let row = ARCHS.iter().find(|a| a.tiny.contains("kv_lora_rank")).unwrap();
    let settings = serde_json::from_str(row.tiny).unwrap();
    let model = Model::new(&Config::build(row.name, &settings).unwrap(), 1, &Device::Cpu).unwrap();
    // Fresh matrices are so small that attention would hardly matter.
    for (name, param) in model.parameters() {
        if name.contains("attn_") && !name.contains("norm") {
            let seen = Tensor::from_vec(vec![20f32], 1, &Device::Cpu).unwrap();
            param.set(param.get().detach().mul(&seen).unwrap());
        }
    }
    let gguf = Gguf::from_bytes("new", model.to_gguf(None, &SaveOptions::default()).unwrap()).unwrap();
    let mut keys = gguf.metadata().to_values();
    keys.retain(|(key, _)| !key.ends_with("_mla") && !key.ends_with(".key_length") && !key.ends_with(".value_length"));
    for (key, value) in [("key_length", KEY + TURNED), ("value_length", VALUE)] {
        keys.push((format!("{}.attention.{key}", row.name), Value::from(value as u32)));
    }
    let mut list: Vec<(TensorSpec, Vec<u8>)> = Vec::new();
    for t in gguf.tensors() {
        let (name, shape) = match t.name.strip_suffix("attn_k_b.weight") {
            Some(block) => (format!("{block}attn_kv_b.weight"), vec![HEADS * (KEY + VALUE), RANK]),
            None if t.name.ends_with("attn_v_b.weight") => continue,
            None => (t.name.clone(), t.shape.clone()),
        };
        let bytes = match t.name.strip_suffix("k_b.weight") {
            Some(block) => {
                let v_b = gguf.find(&format!("{block}v_b.weight")).unwrap();
                joined(&floats(&t.bytes), &floats(&v_b.bytes))
            }
            None => t.bytes.to_vec(),
        };
        assert_eq!(t.format, Format::F32);
        list.push((TensorSpec { name, shape, format: t.format }, bytes));
    }
    let entries: Vec<TensorSpec> = list.iter().map(|t| t.0.clone()).collect();
    let mut writer = GgufWriter::to_memory("old", &keys, &entries).unwrap();
    list.iter().for_each(|(entry, bytes)| writer.tensor(&entry.name, bytes).unwrap());
    let old = Loaded::from_gguf_bytes("old", writer.into_memory().unwrap(), &Device::Cpu).unwrap();
    assert_eq!(old.model.config().layers(), model.config().layers());
    let (a, b) = (logits(&model), logits(&old.model));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5));
    assert!(a.iter().any(|x| x.abs() > 0.01));
}
