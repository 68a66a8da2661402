//! What a safetensors file without a configuration holds: its tensors, and the layers that their names and shapes show.

use std::collections::BTreeMap;
use std::path::Path;

use imaginal_files::SafeTensors;
use indicatif::DecimalBytes;
use serde_json::{Value, json};

use crate::cli::Failure;

/// Tensors that belong together: one layer of a network, or the same layer of many blocks.
struct Group {
    /// The name without the tensor's own part, with `{n}` for the numbers of blocks.
    name: String,
    /// Own part, shape and type of each tensor.
    parts: BTreeMap<String, (Vec<usize>, &'static str)>,
    /// How many there are of it.
    count: usize,
}

/// The weights of a file, or of a folder without `config.json`; `None` for anything else.
///
/// # Errors
/// The file is damaged.
pub(crate) fn open(path: &Path) -> Result<Option<SafeTensors>, Failure> {
    let name = path.to_string_lossy();
    if path.is_dir() {
        let weights = ["model.safetensors", "model.safetensors.index.json"].iter().any(|f| path.join(f).exists());
        let unlabelled = weights && !path.join("config.json").exists();
        return Ok(if unlabelled { Some(SafeTensors::open_dir(path, Default::default())?) } else { None });
    }
    let ours = name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json");
    Ok(if ours { Some(SafeTensors::open(path, Default::default())?) } else { None })
}

/// Prints or returns what the weights are; `tensors` lists every one.
pub(crate) fn show(name: &str, weights: &SafeTensors, tensors: bool, as_json: bool) -> Result<(), Failure> {
    let groups = groups(weights);
    let layers: Vec<(&Group, Option<String>)> = groups.iter().map(|g| (g, recognise(g))).collect();
    let known = layers.iter().filter(|l| l.1.is_some()).map(|l| l.0.parts.len() * l.0.count).sum::<usize>();
    let total = weights.tensors().len();
    let parameters: usize = weights.tensors().iter().map(|t| t.elem_count()).sum();
    let bytes: usize = weights.tensors().iter().map(|t| t.bytes.len()).sum();
    if as_json {
        let row = |(g, kind): &(&Group, Option<String>)| {
            let parts: BTreeMap<_, _> =
                g.parts.iter().map(|(k, (shape, dtype))| (k, json!({ "shape": shape, "dtype": dtype }))).collect();
            json!({ "name": g.name, "count": g.count, "layer": kind, "tensors": parts })
        };
        let tensor = |t: &imaginal_files::safetensors::TensorInfo| json!({ "name": t.name, "shape": t.shape, "dtype": t.dtype.name() });
        let document = json!({
            "model": name,
            "path": weights.path(),
            "configuration": Value::Null,
            "parameters": parameters,
            "bytes": bytes,
            "recognised_tensors": known,
            "layers": layers.iter().map(row).collect::<Vec<_>>(),
            "metadata": weights.metadata(),
            "tensors": weights.tensors().iter().map(tensor).collect::<Vec<_>>(),
        });
        println!("{}", serde_json::to_string_pretty(&document)?);
        return Ok(());
    }
    println!(
        "{name}: safetensors without a config.json, {total} tensors, {parameters} parameters, {}",
        DecimalBytes(bytes as u64)
    );
    if known > 0 {
        println!("\nrecognised by names and shapes ({known} tensors):");
    }
    for (g, kind) in layers.iter().filter_map(|(g, kind)| Some((g, kind.as_ref()?))) {
        let times = if g.count > 1 { format!("  × {}", g.count) } else { String::new() };
        println!("  {:44} {kind}, {}{times}", g.name, dtypes(g));
    }
    if known < total {
        println!("\nnot recognised ({} tensors):", total - known);
        for (g, _) in layers.iter().filter(|l| l.1.is_none()) {
            let times = if g.count > 1 { format!("  × {}", g.count) } else { String::new() };
            for (part, (shape, dtype)) in &g.parts {
                println!("  {:44} {shape:?} {dtype}{times}", join(&g.name, part));
            }
        }
    }
    if tensors {
        println!();
        weights.tensors().iter().for_each(|t| println!("{:60} {:?} {}", t.name, t.shape, t.dtype.name()));
    }
    Ok(())
}

fn join(name: &str, part: &str) -> String {
    if name.is_empty() { part.to_owned() } else { format!("{name}.{part}") }
}

fn dtypes(group: &Group) -> String {
    let mut names: Vec<&str> = group.parts.values().map(|p| p.1).collect();
    names.sort_unstable();
    names.dedup();
    names.join("+")
}

/// Tensors by layer; the same layer of several blocks with the same shapes is one group.
fn groups(weights: &SafeTensors) -> Vec<Group> {
    let mut layers: BTreeMap<&str, BTreeMap<String, (Vec<usize>, &'static str)>> = BTreeMap::new();
    for t in weights.tensors() {
        let (layer, part) = t.name.rsplit_once('.').unwrap_or(("", &t.name));
        layers.entry(layer).or_default().insert(part.to_owned(), (t.shape.clone(), t.dtype.name()));
    }
    let mut groups: Vec<Group> = Vec::new();
    for (layer, parts) in layers {
        let number = |part: &str| if part.parse::<u32>().is_ok() { "{n}".to_owned() } else { part.to_owned() };
        let name = layer.split('.').map(number).collect::<Vec<_>>().join(".");
        match groups.iter_mut().find(|g| g.name == name && g.parts == parts) {
            Some(group) => group.count += 1,
            None => groups.push(Group { name, parts, count: 1 }),
        }
    }
    groups
}

/// What a group is, in words; `None` if its names and shapes fit nothing that is known.
fn recognise(group: &Group) -> Option<String> {
    let shape = |part: &str| group.parts.get(part).map(|p| p.0.as_slice());
    let only = |allowed: &[&str]| group.parts.keys().all(|k| allowed.contains(&k.as_str()));
    let last = group.name.rsplit('.').next().unwrap_or_default().to_lowercase();
    let named = |words: &[&str]| words.iter().any(|w| last.contains(w));
    let embedding = named(&["embed", "wte", "wpe", "shared", "lookup"]);
    let with = |bias: Option<&[usize]>| if bias.is_some() { ", bias" } else { "" };
    let bias = shape("bias");
    if let (Some([channels]), Some([_])) = (shape("running_mean"), shape("running_var"))
        && only(&["weight", "bias", "running_mean", "running_var", "num_batches_tracked"])
    {
        return Some(format!("batch norm of {channels}"));
    }
    if let (Some([inner, state]), Some(_)) = (shape("A_log"), shape("D"))
        && only(&["A_log", "D", "dt_bias"])
    {
        return Some(format!("Mamba scan, {inner} channels of {state} states"));
    }
    if let (Some([heads]), Some(_)) = (shape("A_log"), shape("D"))
        && only(&["A_log", "D", "dt_bias"])
    {
        return Some(format!("Mamba-2 scan, {heads} heads"));
    }
    if let (Some([rows, _]), Some(_), Some(_)) = (shape("qweight"), shape("scales"), shape("qzeros")) {
        return Some(format!("linear in packed integers (GPTQ or AWQ), {rows} packed rows"));
    }
    if let (Some([columns3, columns]), true) =
        (shape("in_proj_weight"), only(&["in_proj_weight", "in_proj_bias", "bias_k", "bias_v"]))
        && *columns3 == 3 * columns
    {
        return Some(format!("attention, query, key and value of {columns} in one"));
    }
    if !only(&["weight", "bias", "weight_scale", "weight_scale_inv", "input_scale"]) {
        return None;
    }
    let scaled = if only(&["weight", "bias"]) { "" } else { ", scaled" };
    let fits = |outputs: usize| bias.is_none_or(|b| b == [outputs]);
    match shape("weight")? {
        [n] if fits(*n) && bias.is_some() => Some(format!("layer norm of {n}")),
        [n] if bias.is_none() => Some(format!("norm of {n} (RMS, or without bias)")),
        [n, d] if embedding && bias.is_none() => Some(format!("embedding of {n} in {d}{scaled}")),
        [o, i] if last.ends_with("lora_a") || last.ends_with("lora_b") => Some(format!("low-rank adapter, {i} → {o}")),
        [o, i] if fits(*o) => Some(format!("linear, {i} → {o}{}{scaled}", with(bias))),
        // GPT-2 keeps them the other way round.
        [i, o] if fits(*o) => Some(format!("linear, transposed, {i} → {o}{}", with(bias))),
        [c, 1, k] if fits(*c) => Some(format!("convolution of {c} channels each, width {k}{}", with(bias))),
        [o, i, k] if fits(*o) && *k <= 64 => Some(format!("convolution, {i} → {o}, width {k}{}", with(bias))),
        [e, o, i] if bias.is_none() => Some(format!("{e} matrices, {i} → {o}{scaled}")),
        [o, i, h, w] if fits(*o) => Some(format!("convolution, {i} → {o}, {h} × {w}{}", with(bias))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use imaginal_files::SafeTensorsWriter;
    use imaginal_files::safetensors::{Dtype, TensorSpec};

    fn weights(tensors: &[(&str, &[usize])]) -> SafeTensors {
        let spec = |(name, shape): &(&str, &[usize])| TensorSpec {
            name: name.to_string(),
            shape: shape.to_vec(),
            dtype: Dtype::F16,
        };
        let specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
        let mut writer = SafeTensorsWriter::to_memory("t", &Default::default(), &specs).unwrap();
        for (_, shape) in tensors {
            writer.append(&vec![0; 2 * shape.iter().product::<usize>()]).unwrap();
        }
        SafeTensors::from_bytes("t", writer.into_memory().unwrap()).unwrap()
    }

    #[test]
    fn layers_are_known_by_names_and_shapes() {
        let w = weights(&[
            ("tok_embeddings.weight", &[100, 8]),
            ("layers.0.attn.wq.weight", &[16, 8]),
            ("layers.1.attn.wq.weight", &[16, 8]),
            ("layers.0.c_attn.weight", &[8, 24]),
            ("layers.0.c_attn.bias", &[24]),
            ("layers.0.norm.weight", &[8]),
            ("layers.0.ln.weight", &[8]),
            ("layers.0.ln.bias", &[8]),
            ("layers.0.conv.weight", &[8, 1, 4]),
            ("layers.0.ssm.A_log", &[8, 16]),
            ("layers.0.ssm.D", &[8]),
            ("experts.w", &[2, 3]),
            ("lone", &[2]),
        ]);
        let found: BTreeMap<String, (usize, Option<String>)> =
            groups(&w).iter().map(|g| (g.name.clone(), (g.count, recognise(g)))).collect();
        let kind = |name: &str| found[name].1.clone().unwrap_or_default();
        assert_eq!(kind("tok_embeddings"), "embedding of 100 in 8");
        assert_eq!((found["layers.{n}.attn.wq"].0, kind("layers.{n}.attn.wq").as_str()), (2, "linear, 8 → 16"));
        assert_eq!(kind("layers.{n}.c_attn"), "linear, transposed, 8 → 24, bias");
        assert_eq!(kind("layers.{n}.ln"), "layer norm of 8");
        assert!(kind("layers.{n}.norm").starts_with("norm of 8"));
        assert_eq!(kind("layers.{n}.conv"), "convolution of 8 channels each, width 4");
        assert_eq!(kind("layers.{n}.ssm"), "Mamba scan, 8 channels of 16 states");
        assert_eq!((found["experts"].1.as_ref(), found[""].1.as_ref()), (None, None));
    }
}
