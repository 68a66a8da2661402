//! Changing the format of a model file: the default model, whose weights are trained.

use std::path::{Path, PathBuf};

use imaginal_files::Gguf;
use imaginal_files::gguf::{GgufWriter, TensorSpec};
use imaginal_models::morph::{Importance, Recipe, morph};
use imaginal_models::{LoadOptions, Loaded, Model, Rows};
use imaginal_numeric::Format;
use imaginal_tensor::no_grad;

fn default_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/default/model.gguf")
}

fn open(path: &Path) -> Gguf {
    Gguf::open(path, Default::default()).unwrap()
}

fn logits(path: &Path) -> Vec<f32> {
    let loaded = Loaded::open(path, &LoadOptions::default()).unwrap();
    let ids: Vec<u32> = (10..40).collect();
    no_grad(|| loaded.model.forward(&Model::ids(&ids).unwrap(), None, Rows::All).unwrap().to_vec::<f32>().unwrap())
}

/// Squared distance over squared length.
fn nmse(a: &[f32], b: &[f32]) -> f64 {
    let sum = |f: &dyn Fn(usize) -> f32| (0..a.len()).map(|i| f64::from(f(i)).powi(2)).sum::<f64>();
    sum(&|i| a[i] - b[i]) / sum(&|i| b[i])
}

#[test]
fn every_tensor_gets_its_format_and_the_model_stays_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let source = open(&default_model());
    let expected = logits(&default_model());
    for (name, bound) in
        [("f32", 1e-10), ("f16", 1e-5), ("q8_0", 1e-10), ("q6_k", 1e-3), ("q4_k_m", 0.02), ("iq4_nl", 0.1)]
    {
        let recipe = Recipe::from_name(name).unwrap();
        let out = dir.path().join(format!("{name}.gguf"));
        let mut heard = 0;
        morph(&source, recipe, None, &out, &mut |t| {
            heard += 1;
            assert!(t.error < 0.1, "{name} {}: {}", t.name, t.error);
        })
        .unwrap();
        let result = open(&out);
        assert_eq!(heard, source.tensors().len());
        for (from, to) in source.tensors().iter().zip(result.tensors()) {
            assert_eq!((&from.name, &from.shape), (&to.name, &to.shape));
            let matrix =
                recipe.choose(&from.name, &from.shape, imaginal_models::morph::Shape { layers: 6, grouped: 1 });
            assert_eq!(to.format, matrix.unwrap_or(from.format), "{name} {}", to.name);
            if to.format == from.format {
                assert!(*from.bytes == *to.bytes, "{name} {}", to.name);
            }
        }
        for (key, value) in source.metadata().iter().filter(|(k, _)| *k != "general.file_type") {
            assert_eq!(Some(value.to_value()), result.metadata().get(key).map(|v| v.to_value()), "{key}");
        }
        assert_eq!(result.metadata().get_as::<u32>("general.file_type").unwrap(), recipe.file_type);
        let error = nmse(&logits(&out), &expected);
        assert!(error <= bound, "{name}: {error}");
    }
}

#[test]
fn an_importance_matrix_is_heeded_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let name = "blk.0.ssm_in.weight";
    let source = open(&default_model());
    let tensor = source.tensor(name).unwrap();
    let cols = tensor.shape[1];
    let write = |file: &str, sums: &[f32]| {
        let path = dir.path().join(file);
        let spec = |name: String, cols| TensorSpec { name, shape: vec![1, cols], format: Format::F32 };
        let specs = [spec(format!("{name}.in_sum2"), sums.len()), spec(format!("{name}.counts"), 1)];
        let mut writer = GgufWriter::create(&path, &[("general.type".to_owned(), "imatrix".into())], &specs).unwrap();
        let bytes = |x: &[f32]| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        writer.append(&bytes(sums)).unwrap();
        writer.append(&bytes(&[2.0])).unwrap();
        writer.finish().unwrap();
        path
    };
    // The first columns matter a thousand times as much.
    let weight = |c: usize| if c < cols / 4 { 1000.0 } else { 1.0 };
    let sums: Vec<f32> = (0..cols).map(weight).collect();
    let importance = Importance::open(write("imatrix.gguf", &sums)).unwrap();
    let weighted = |importance: Option<&Importance>| {
        let out = dir.path().join("out.gguf");
        morph(&source, Recipe::from_name("q4_0").unwrap(), importance, &out, &mut |_| ()).unwrap();
        let floats = |t: &imaginal_files::gguf::TensorInfo| {
            let mut x = vec![0.0; t.elem_count()];
            t.format.decode(&t.bytes, &mut x).unwrap();
            x
        };
        let (a, b) = (floats(tensor), floats(open(&out).tensor(name).unwrap()));
        a.iter().zip(&b).enumerate().map(|(i, (a, b))| weight(i % cols) * (a - b) * (a - b)).sum::<f32>()
    };
    assert!(weighted(Some(&importance)) < 0.95 * weighted(None));

    let short = Importance::open(write("short.gguf", &sums[1..])).unwrap();
    let out = dir.path().join("short-out.gguf");
    let error = morph(&source, Recipe::from_name("q4_0").unwrap(), Some(&short), &out, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains(name), "{error}");
    assert!(!out.exists());
    assert!(Importance::open(default_model()).unwrap_err().to_string().contains("no importance matrix"));
}
