//! Encoders against transformers: hidden states, vectors and scores of tiny random models.

#[path = "common/encoder.rs"]
mod encoder;

use std::path::{Path, PathBuf};

use encoder::Expected;
use imaginal_files::Json;
use imaginal_models::{ARCHS, Arch, Config, HeadConfig, LoadOptions, Loaded, Model, Rows, SaveOptions, Text};
use imaginal_nn::{Module, Rng};
use imaginal_tensor::Device;

const TOLERANCE: f32 = 2e-4;

fn load(path: &Path) -> Loaded {
    Loaded::open(path, &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn fixtures() -> Vec<(PathBuf, Model)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|dir| dir.join("expected.safetensors").exists());
    all.sort();
    let models = all.into_iter().map(|dir| (load(&dir).model, dir)).map(|(model, dir)| (dir, model));
    let encoders: Vec<_> = models.filter(|(_, model)| model.config().arch().encoder.is_some()).collect();
    assert!(encoders.len() >= 8);
    encoders
}

fn check(dir: &Path, model: &Model, how: &str) {
    let found = Expected::open(dir).differences(model);
    assert!(!found.is_empty(), "{}", dir.display());
    for (what, d) in found {
        assert!(d <= TOLERANCE, "{} {how}, {what}: {d}", dir.display());
    }
}

#[test]
fn directories_and_gguf_files_agree_with_transformers() {
    for (dir, model) in fixtures() {
        check(&dir, &model, "directory");
        let path = dir.join("model.gguf");
        if path.exists() {
            check(&dir, &load(&path).model, "gguf");
        }
    }
}

#[test]
fn a_saved_encoder_is_the_same_model() {
    for (dir, model) in fixtures() {
        match model.to_gguf(None, &SaveOptions::default()) {
            Ok(bytes) => {
                let again = Loaded::from_gguf_bytes("memory", bytes, &Device::Cpu).unwrap();
                check(&dir, &again.model, "saved");
                assert_eq!(again.model.config().pooling(), model.config().pooling());
                if let HeadConfig::Labels(labels) = model.config().head() {
                    assert_eq!(again.labels(), labels.names);
                }
            }
            // The format has no place for heads of masked words.
            Err(error) => {
                assert!(matches!(model.config().head(), HeadConfig::Masked(_)), "{}: {error}", dir.display());
                assert!(error.to_string().contains("no place"), "{error}");
            }
        }
    }
}

/// Every row with every head it has, fresh.
fn fresh() -> Vec<Model> {
    let mut all = Vec::new();
    for arch in ARCHS.iter().filter(|a| a.encoder.is_some()) {
        for class in ["Model", "ForSequenceClassification", "ForMaskedLM"] {
            let mut settings = Json::parse("settings", arch.tiny.as_bytes()).unwrap().root().clone();
            settings["architectures"] = vec![class].into();
            settings["max_position_embeddings"] = 512.into();
            let model = Model::new(&Config::build(arch.name, &settings).unwrap(), 1, &Device::Cpu).unwrap();
            let has = |arch: &Arch| arch.encoder.map(|e| (e.labels.is_some(), e.masked.is_some()));
            match (model.config().head(), class) {
                (HeadConfig::None, "ForSequenceClassification") => assert_eq!(has(arch), Some((false, false))),
                (HeadConfig::None, "ForMaskedLM") => assert_eq!(has(arch), Some((false, false))),
                _ => all.push(model),
            }
        }
    }
    all
}

fn texts(vocab: usize, lengths: &[usize]) -> Vec<Text> {
    let mut rng = Rng::new(5);
    let text = |&n: &usize| Text::new((0..n).map(|_| (rng.next_u64() % vocab as u64) as u32).collect());
    lengths.iter().map(text).collect()
}

#[test]
fn texts_do_not_see_each_other() {
    for model in fresh().iter().filter(|m| *m.config().head() == HeadConfig::None) {
        // Equal lengths side by side, more tokens than are computed together, and one token alone.
        let all = texts(model.config().vocab(), &[7, 7, 500, 1, 7, 300, 400, 20]);
        let values = |texts: &[Text]| model.embed(texts).unwrap().to_vec::<f32>().unwrap();
        let together = values(&all);
        for (text, row) in all.iter().zip(together.chunks(model.config().hidden())) {
            let alone = values(std::slice::from_ref(text));
            assert!(alone.iter().zip(row).all(|(a, b)| (a - b).abs() <= 1e-5), "{}", model.config().arch().name);
            assert!((row.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn parts_of_a_pair_are_told_apart_where_the_model_has_types() {
    for model in fresh().iter().filter(|m| *m.config().head() == HeadConfig::None) {
        let plain = texts(model.config().vocab(), &[9]).remove(0);
        let pair = Text { types: vec![0, 0, 0, 0, 1, 1, 1, 1, 1], ..plain.clone() };
        let values = |text: &Text| model.hidden(std::slice::from_ref(text)).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(values(&plain) != values(&pair), model.config().types() > 1);
        let bad = Text { types: vec![0, 1], ..plain };
        assert!(model.hidden(&[bad]).unwrap_err().to_string().contains("2 types for 9 tokens"));
    }
}

#[test]
fn gradients_reach_every_parameter() {
    for model in fresh() {
        let config = model.config();
        let all = texts(config.vocab(), &[12, 5, 12]);
        let result = match config.head() {
            HeadConfig::Labels(_) => model.scores(&all),
            HeadConfig::Masked(_) => model.forward(&Model::ids(&all[0].tokens).unwrap(), None, Rows::All),
            _ => model.hidden(&all),
        };
        let weights: Vec<f32> = (0..result.as_ref().unwrap().elem_count()).map(|i| (i as f32 * 0.7).sin()).collect();
        let result = result.unwrap();
        let weights = imaginal_tensor::Tensor::from_vec(weights, result.shape(), &Device::Cpu).unwrap();
        let grads = result.mul(&weights).unwrap().sum_all().unwrap().backward().unwrap();
        for (name, param) in model.parameters() {
            let grad = grads.get(&param.get()).unwrap_or_else(|| panic!("{}: {name}", config.arch().name));
            let values = grad.to_vec::<f32>().unwrap();
            assert!(values.iter().all(|x| x.is_finite()) && values.iter().any(|x| *x != 0.0), "{name}");
        }
    }
}

#[test]
fn fresh_encoders_have_the_tensors_of_the_table_and_go_through_files() {
    for model in fresh() {
        let mut has = Vec::new();
        model.slots("", &mut |name, _| has.push(name));
        let mut named: Vec<String> = model.config().tensors().into_iter().map(|t| t.name).collect();
        has.sort();
        named.sort();
        assert_eq!(has, named, "{}", model.config().arch().name);
        let Ok(bytes) = model.to_gguf(None, &SaveOptions::default()) else {
            assert!(matches!(model.config().head(), HeadConfig::Masked(_)));
            continue;
        };
        let again = Loaded::from_gguf_bytes("memory", bytes, &Device::Cpu).unwrap().model;
        let all = texts(model.config().vocab(), &[30, 3]);
        let values = |m: &Model| m.hidden(&all).unwrap().to_vec::<f32>().unwrap();
        assert!(values(&model).iter().zip(values(&again)).all(|(a, b)| (a - b).abs() <= 1e-5));
        assert_eq!(model.config().head(), again.config().head());
    }
}

#[test]
fn what_an_encoder_cannot_do_is_said() {
    for model in fresh() {
        let name = model.config().arch().name;
        let said = model.state(1).unwrap_err().to_string();
        assert!(said.contains(name) && said.contains("imaginal embed"), "{said}");
        let ids = Model::ids(&[1, 2, 3]).unwrap();
        match model.config().head() {
            HeadConfig::Masked(_) => {}
            _ => assert!(model.forward(&ids, None, Rows::All).unwrap_err().to_string().contains("no logits")),
        }
        let score = model.scores(&[Text::new(vec![1, 2])]);
        assert_eq!(score.is_ok(), matches!(model.config().head(), HeadConfig::Labels(_)));
        assert!(model.hidden(&[]).is_err() && model.hidden(&[Text::default()]).is_err());
        let beyond = model.hidden(&[Text::new(vec![1, 67])]).unwrap_err().to_string();
        assert!(beyond.contains("token 67 at position 1"), "{beyond}");
        if model.config().arch().embedding.positions.is_some() {
            let long = model.hidden(&texts(60, &[600])).unwrap_err().to_string();
            assert!(long.contains("600 tokens"), "{long}");
        }
    }
}

#[test]
fn wrong_configurations_are_refused_by_name() {
    let refused = |arch: &str, changes: &str| {
        let row = ARCHS.iter().find(|a| a.name == arch).unwrap();
        let mut settings = Json::parse("settings", row.tiny.as_bytes()).unwrap().root().clone();
        settings["model_type"] = row.hf[0].model_type.into();
        for (key, value) in Json::parse("changes", changes.as_bytes()).unwrap().root().as_object().unwrap() {
            settings[key] = value.clone();
        }
        Config::from_hf(&settings, Path::new("dir/config.json")).map(|_| ()).unwrap_err().to_string()
    };
    let labels = r#""architectures": ["BertForSequenceClassification"]"#;
    for (arch, changes, expected) in [
        ("bert", r#"{"position_embedding_type": "relative_key"}"#, "position_embedding_type: only \"absolute\""),
        ("bert", r#"{"is_decoder": true}"#, "is_decoder: only false"),
        ("bert", r#"{"type_vocab_size": -1}"#, "type_vocab_size: -1 is not"),
        ("bert", &format!(r#"{{{labels}, "id2label": [1]}}"#), "id2label: not an object"),
        ("bert", &format!(r#"{{{labels}, "id2label": {{"0": "a", "2": "b"}}}}"#), "id2label: not an object"),
        ("bert", &format!(r#"{{{labels}, "num_labels": 0}}"#), "num_labels: 0 is not"),
        ("roberta", r#"{"max_position_embeddings": 2}"#, "max_position_embeddings: 2 positions, but"),
        ("roberta", r#"{"pad_token_id": "x"}"#, "pad_token_id: \"x\" is not"),
        ("modern-bert", r#"{"global_attn_every_n_layers": 0}"#, "global_attn_every_n_layers: 0 is not"),
        ("modern-bert", r#"{"norm_bias": 3}"#, "norm_bias: 3 is neither"),
        (
            "modern-bert",
            r#"{"architectures": ["ModernBertForSequenceClassification"], "classifier_pooling": "max"}"#,
            "classifier_pooling: \"max\" is neither",
        ),
        ("nomic-bert", r#"{"rotary_scaling_factor": 2.0, "prenorm": true}"#, "prenorm: only false"),
        ("nomic-bert", r#"{"rotary_scaling_factor": 2.0, "prenorm": true}"#, "rotary_scaling_factor: only null"),
    ] {
        let said = refused(arch, changes);
        assert!(said.contains(expected), "{changes}: {said}");
    }
}

#[test]
fn declared_pooling_is_read_and_wrong_declarations_are_refused() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert-plain");
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(source.join(name), dir.path().join(name)).unwrap();
    }
    std::fs::create_dir(dir.path().join("1_Pooling")).unwrap();
    let pooling = |modules: &str, config: &str| {
        std::fs::write(dir.path().join("modules.json"), modules).unwrap();
        std::fs::write(dir.path().join("1_Pooling/config.json"), config).unwrap();
        Loaded::open(dir.path(), &LoadOptions::default()).map(|l| l.model.config().pooling()).map_err(|e| e.to_string())
    };
    let module =
        |kind: &str| format!(r#"[{{"type": "a.Transformer", "path": ""}}, {{"type": "{kind}", "path": "1_Pooling"}}]"#);
    let declared = |config: &str| pooling(&module("b.c.Pooling"), config);
    use imaginal_models::PoolingKind::*;
    for (key, kind) in [
        ("pooling_mode_cls_token", First),
        ("pooling_mode_mean_tokens", Mean),
        ("pooling_mode_max_tokens", Max),
        ("pooling_mode_mean_sqrt_len_tokens", MeanSqrt),
        ("pooling_mode_lasttoken", Last),
    ] {
        let found = declared(&format!(r#"{{"{key}": true}}"#)).unwrap();
        assert!(found.kind == kind && !found.normalize);
    }
    assert_eq!(declared(r#"{"pooling_mode": "lasttoken"}"#).unwrap().kind, Last);
    for (modules, config, expected) in [
        (module("Pooling"), "{}", "no way of pooling"),
        (module("Pooling"), r#"{"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true}"#, "several ways"),
        (module("Pooling"), r#"{"pooling_mode": "other"}"#, "\"other\" is not supported"),
        (module("Dense"), "{}", "\"Dense\" is not supported"),
        ("{}".into(), "{}", "not a list"),
        (module("Pooling").replace("1_Pooling", "../x"), "{}", "leads out of the model"),
    ] {
        let said = pooling(&modules, config).unwrap_err();
        assert!(said.contains(expected), "{said}");
    }
}
