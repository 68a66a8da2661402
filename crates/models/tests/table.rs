//! Every row of the table, through its tiny configuration: names, shapes, gradients, state, files. And what is refused.

use std::collections::BTreeMap;
use std::path::Path;

use imaginal_files::gguf::{GgufWriter, TensorSpec as FileTensor, Value};
use imaginal_files::{Gguf, Json, SafeTensors};
use imaginal_models::{ARCHS, Config, Error, Loaded, Model, ModelState, Rows, SaveOptions, State};
use imaginal_nn::{Module, Rng, Slot};
use imaginal_numeric::Format;
use imaginal_tensor::{Device, Tensor, no_grad};

fn json(text: &str) -> serde_json::Value {
    Json::parse("settings", text.as_bytes()).unwrap().root().clone()
}

fn tiny(arch: &str) -> Config {
    let row = ARCHS.iter().find(|a| a.name == arch).unwrap();
    Config::build(row.name, &json(row.tiny)).unwrap_or_else(|e| panic!("{e}"))
}

/// Of those that can say how a text goes on; tests/encoders.rs is about the others.
fn models() -> impl Iterator<Item = Model> {
    ARCHS.iter().filter(|a| a.encoder.is_none()).map(|a| Model::new(&tiny(a.name), 1, &Device::Cpu).unwrap())
}

fn tokens(n: usize, vocab: usize, seed: u64) -> Vec<u32> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| (rng.next_u64() % vocab as u64) as u32).collect()
}

fn logits(model: &Model, tokens: &[u32]) -> Vec<f32> {
    no_grad(|| model.forward(&Model::ids(tokens).unwrap(), None, Rows::All)).unwrap().to_vec().unwrap()
}

#[test]
fn a_model_has_the_tensors_that_its_table_names() {
    for model in models() {
        let config = model.config();
        let mut has = BTreeMap::new();
        model.slots("", &mut |name, slot| {
            let shape = match slot {
                Slot::Weight(w) => vec![w.rows(), w.cols()],
                Slot::Param(p) => p.get().shape().to_vec(),
            };
            assert!(has.insert(name, shape).is_none());
        });
        // Stacked matrices are one matrix of all their rows.
        let matrix = |t: &imaginal_models::TensorSpec| match (t.matrix, &t.shape[..]) {
            (true, [outer @ .., cols]) => vec![outer.iter().product(), *cols],
            (_, shape) => shape.to_vec(),
        };
        let named: BTreeMap<_, _> = config.tensors().into_iter().map(|t| (t.name.clone(), matrix(&t))).collect();
        assert_eq!(has, named, "{}", config.arch().name);
        assert_eq!(model.parameters().len(), has.len());
        assert_eq!(config.parameters(), has.values().map(|s| s.iter().product::<usize>()).sum::<usize>());
        for t in config.tensors() {
            assert!(t.gguf[0].name.len() < 64 && !t.hf.is_empty());
        }
    }
}

#[test]
fn gradients_reach_every_parameter() {
    for model in models() {
        let vocab = model.config().vocab();
        let ids = Tensor::from_vec(tokens(24, vocab, 3), [2, 12], &Device::Cpu).unwrap();
        let logits = model.forward(&ids, None, Rows::All).unwrap().reshape([24, vocab]).unwrap();
        let targets = Tensor::from_vec(tokens(24, vocab, 4), 24, &Device::Cpu).unwrap();
        let loss = logits.cross_entropy(&targets, None).unwrap();
        // A fresh model knows nothing: about ln(vocab) nats.
        assert!((loss.to_scalar::<f32>().unwrap() - (vocab as f32).ln()).abs() < 1.0);
        let grads = loss.backward().unwrap();
        for (name, param) in model.parameters() {
            if name.ends_with("exp_probs_b.bias") {
                // It only takes part in the choice of experts, which has no gradient.
                assert!(grads.get(&param.get()).is_none());
                continue;
            }
            let grad = grads.get(&param.get()).unwrap_or_else(|| panic!("{name} has no gradient"));
            assert_eq!(grad.shape(), param.get().shape());
            let values = grad.to_vec::<f32>().unwrap();
            assert!(values.iter().all(|x| x.is_finite()) && values.iter().any(|x| *x != 0.0), "{name}");
        }
    }
}

#[test]
fn fresh_models_go_through_files_unchanged() {
    for model in models() {
        let name = model.config().arch().name;
        let ids = tokens(30, model.config().vocab(), 5);
        let bytes = model.to_gguf(None, &SaveOptions::default()).unwrap();
        let again = Loaded::from_gguf_bytes("memory", bytes, &Device::Cpu).unwrap();
        assert!(again.tokenizer.is_none());
        let (a, b) = (logits(&model, &ids), logits(&again.model, &ids));
        assert!(a.iter().zip(&b).all(|(x, y)| (x - y).abs() <= 1e-5), "{name}");
        assert_eq!(model.config().layers(), again.model.config().layers(), "{name}");
        assert_eq!(again.model.config().context(), model.config().context());
    }
}

/// Grows, rewinds and forks at random; the logits must be those of a fresh run.
#[test]
fn states_may_go_any_way() {
    for model in models() {
        let vocab = model.config().vocab();
        let mut rng = Rng::new(11);
        let mut seen = tokens(700, vocab, 6);
        let mut all = logits(&model, &seen);
        let mut state = model.state(1).unwrap();
        let feed = |state: &mut ModelState, seen: &[u32], all: &[f32], t: usize| {
            let at = state.len();
            let ids = Model::ids(&seen[at..at + t]).unwrap();
            let got = model.forward(&ids, Some(state), Rows::All).unwrap().to_vec::<f32>().unwrap();
            let near = got.iter().zip(&all[at * vocab..]).all(|(a, b)| (a - b).abs() <= 1e-4);
            assert!(near, "{} at {at}+{t}", model.config().arch().name);
        };
        for _ in 0..12 {
            let t = (1 + rng.next_u64() as usize % 150).min(seen.len() - state.len());
            if t > 0 {
                feed(&mut state, &seen, &all, t);
            }
            match rng.next_u64() % 3 {
                0 => {
                    let wanted = rng.next_u64() as usize % (state.len() + 1);
                    let at = state.rewind_point(wanted);
                    state.rewind(at).unwrap();
                    let from = state.len();
                    seen.splice(from.., tokens(700 - from, vocab, rng.next_u64()));
                    all = logits(&model, &seen);
                }
                1 => {
                    let mut fork = state.clone();
                    let mut bytes = Vec::new();
                    fork.save(&mut bytes).unwrap();
                    let mut restored = model.state(1).unwrap();
                    restored.restore(&mut bytes.as_slice()).unwrap();
                    for other in [&mut fork, &mut restored] {
                        let t = 9.min(seen.len() - other.len());
                        if t > 0 {
                            feed(other, &seen, &all, t);
                        }
                    }
                }
                _ => state.mark(),
            }
        }
    }
}

#[test]
fn a_failed_call_leaves_the_state_as_it_was() {
    for model in models() {
        let vocab = model.config().vocab();
        let ids = tokens(10, vocab, 7);
        let mut state = model.state(1).unwrap();
        model.forward(&Model::ids(&ids[..6]).unwrap(), Some(&mut state), Rows::Last).unwrap();
        let bad = model.forward(&Model::ids(&[1, 2, vocab as u32]).unwrap(), Some(&mut state), Rows::Last);
        let message = bad.unwrap_err().to_string();
        assert!(message.contains(&format!("token {vocab} at position 2")), "{message}");
        assert!(model.forward(&Model::ids(&[]).unwrap(), Some(&mut state), Rows::All).is_err());
        let two = Tensor::from_vec(vec![1u32, 2], [2, 1], &Device::Cpu).unwrap();
        assert!(model.forward(&two, Some(&mut state), Rows::All).is_err());
        assert_eq!(state.len(), 6);
        let rest = model.forward(&Model::ids(&ids[6..]).unwrap(), Some(&mut state), Rows::Last).unwrap();
        let all = logits(&model, &ids);
        let last = &all[all.len() - vocab..];
        assert!(rest.to_vec::<f32>().unwrap().iter().zip(last).all(|(a, b)| (a - b).abs() <= 1e-5));
    }
}

/// What an error says about a `config.json` with some fields changed (`null` removes one).
fn refused(arch: &str, changes: &str) -> String {
    let row = ARCHS.iter().find(|a| a.name == arch).unwrap();
    let mut settings = json(row.tiny);
    settings["model_type"] = row.hf[0].model_type.into();
    for (key, value) in json(changes).as_object().unwrap() {
        settings[key] = value.clone();
    }
    match Config::from_hf(&settings, Path::new("dir/config.json")) {
        Ok(_) => panic!("{arch} with {changes} was taken"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn wrong_configurations_are_refused_by_name() {
    for (arch, changes, expected) in [
        ("llama", r#"{"hidden_size": null}"#, "hidden_size: missing"),
        ("llama", r#"{"num_hidden_layers": -1}"#, "num_hidden_layers: -1 is not"),
        ("llama", r#"{"num_hidden_layers": 1000000000}"#, "num_hidden_layers: 1000000000 is not"),
        ("llama", r#"{"num_hidden_layers": 1e300}"#, "num_hidden_layers"),
        ("llama", r#"{"vocab_size": "many"}"#, "vocab_size: \"many\" is not"),
        ("llama", r#"{"vocab_size": 0}"#, "vocab_size: 0 is not"),
        ("llama", r#"{"num_attention_heads": 5}"#, "num_attention_heads: 5 heads do not divide"),
        ("llama", r#"{"num_key_value_heads": 3}"#, "num_key_value_heads: 3 does not divide"),
        ("llama", r#"{"head_dim": 7}"#, "head_dim: 7 is not an even number"),
        ("llama", r#"{"rope_theta": -3}"#, "rope_theta: -3 is not"),
        (
            "llama",
            r#"{"rope_scaling": {"type": "other", "factor": 2}}"#,
            "rope_scaling.type: \"other\" is not supported",
        ),
        ("llama", r#"{"rope_scaling": {"rope_type": "linear"}}"#, "factor: missing"),
        ("llama", r#"{"rms_norm_eps": "small"}"#, "rms_norm_eps: \"small\""),
        ("llama", r#"{"hidden_act": "snake"}"#, "hidden_act: \"snake\" is not supported"),
        ("llama", r#"{"tie_word_embeddings": 3}"#, "tie_word_embeddings: 3"),
        ("llama", r#"{"quantization_config": {}}"#, "quantization_config"),
        ("llama", r#"{"model_type": "none"}"#, "architecture \"none\" is not known; known: llama"),
        ("llama", r#"{"model_type": 3}"#, "model_type: missing, or not a string"),
        ("qwen2", r#"{"use_sliding_window": true, "sliding_window": -4}"#, "sliding_window: -4"),
        ("qwen3moe", r#"{"num_experts_per_tok": 6}"#, "num_experts_per_tok: 6 experts for a token, of 5"),
        ("qwen3moe", r#"{"num_experts": 0}"#, "num_experts: 0 is not"),
        ("qwen3moe", r#"{"mlp_only_layers": [-1]}"#, "mlp_only_layers: not a list of whole numbers"),
        ("qwen3moe", r#"{"decoder_sparse_step": 2}"#, "intermediate_size: missing"),
        ("qwen2moe", r#"{"shared_expert_intermediate_size": -1}"#, "shared_expert_intermediate_size: -1"),
        ("gpt-oss", r#"{"swiglu_limit": 0}"#, "swiglu_limit: 0 is not"),
        ("dbrx", r#"{"ffn_config": {"moe_num_experts": 5, "moe_top_k": 2}}"#, "ffn_config.ffn_hidden_size: missing"),
        (
            "dbrx",
            r#"{"ffn_config": {"ffn_hidden_size": 9, "moe_num_experts": 5, "moe_top_k": 2, "moe_normalize_expert_weights": 2}}"#,
            "ffn_config.moe_normalize_expert_weights: only 1 is supported",
        ),
        ("dbrx", r#"{"attn_config": {"clip_qkv": "much"}}"#, "attn_config.clip_qkv: \"much\""),
        ("llama4", r#"{"attention_chunk_size": 0}"#, "attention_chunk_size: 0 is not"),
        ("llama4", r#"{"no_rope_layers": [1, 0]}"#, "no_rope_layers: not a list"),
        ("llama4", r#"{"interleave_moe_layer_step": 0}"#, "interleave_moe_layer_step: 0 is not"),
        ("deepseek2", r#"{"kv_lora_rank": null}"#, "kv_lora_rank: missing"),
        ("deepseek2", r#"{"qk_rope_head_dim": 7}"#, "7 is not an even number"),
        ("deepseek2", r#"{"qk_nope_head_dim": 9999999999}"#, "qk_nope_head_dim: 9999999999 is not"),
        ("deepseek2", r#"{"v_head_dim": 16777216}"#, "v_head_dim: 3 heads are wider"),
        ("deepseek2", r#"{"n_group": 3}"#, "n_group: 2 of 3 groups of 8 experts"),
        ("deepseek2", r#"{"first_k_dense_replace": -1}"#, "first_k_dense_replace: -1 is not"),
        ("gemma3n", r#"{"num_kv_shared_layers": 6}"#, "num_kv_shared_layers: 6 is not a whole number from 0 to 5"),
        ("gemma3n", r#"{"num_kv_shared_layers": 5}"#, "num_kv_shared_layers: no layer of the kind of layer 1"),
        ("gemma3n", r#"{"altup_active_idx": 4}"#, "altup_active_idx: there is no stream 4 of 4"),
        ("gemma3n", r#"{"altup_num_inputs": 1}"#, "altup_num_inputs: 1 is not"),
        (
            "gemma3n",
            r#"{"activation_sparsity_pattern": [0.5, 1, 0, 0, 0, 0]}"#,
            "activation_sparsity_pattern: not a list",
        ),
        ("gemma3n", r#"{"activation_sparsity_pattern": [0.5]}"#, "activation_sparsity_pattern: not a list"),
        ("gemma3n", r#"{"laurel_rank": 0}"#, "laurel_rank: 0 is not"),
        (
            "gemma3n",
            r#"{"hidden_size_per_layer_input": 10000000}"#,
            "hidden_size_per_layer_input: 10000000 for 6 layers",
        ),
        ("falcon", r#"{"alibi": "yes"}"#, "alibi: \"yes\" is neither"),
        ("mamba", r#"{"state_size": 0}"#, "state_size: 0"),
        ("mamba", r#"{"conv_kernel": 100000000}"#, "conv_kernel: 100000000"),
        ("mamba", r#"{"time_step_rank": "some"}"#, "time_step_rank: \"some\""),
        ("mamba", r#"{"expand": 1e9}"#, "expand"),
        (
            "qwen3next",
            r#"{"linear_num_value_heads": 5}"#,
            "linear_num_value_heads: 5 is no multiple of 2 heads of keys",
        ),
        ("qwen3next", r#"{"linear_value_head_dim": 10000000}"#, "linear_value_head_dim: 4 heads of values"),
        ("qwen3next", r#"{"layer_types": ["linear_attention"]}"#, "layer_types: 1 entries for 4 layers"),
        ("qwen35", r#"{"layer_types": ["a", "b", "c", "d"]}"#, "layer_types: \"a\" is none of full_attention"),
        ("qwen35", r#"{"full_attention_interval": 0}"#, "full_attention_interval: 0 is not"),
        (
            "qwen35moe",
            r#"{"linear_conv_kernel_dim": -1, "linear_key_head_dim": 0}"#,
            "linear_conv_kernel_dim: -1 is not",
        ),
        ("lfm2", r#"{"full_attn_idxs": "all"}"#, "full_attn_idxs: not a list of whole numbers"),
        ("lfm2", r#"{"block_multiple_of": 0}"#, "block_multiple_of: 0 is not"),
        ("lfm2moe", r#"{"conv_L_cache": 1000000}"#, "conv_L_cache: 1000000 is not"),
        ("kimi-linear", r#"{"linear_attn_config": {"head_dim": 0}}"#, "linear_attn_config.head_dim: 0 is not"),
        ("kimi-linear", r#"{"linear_attn_config": null, "linear_head_dim": 0}"#, "linear_head_dim: 0 is not"),
        ("minimax-01", r#"{"postnorm": false}"#, "postnorm: only true is supported"),
        ("minimax-01", r#"{"layernorm_mlp_alpha": "x"}"#, "layernorm_mlp_alpha: \"x\" is not a number"),
        ("minimax-01", r#"{"attn_type_list": [0]}"#, "attn_type_list: not a list of truth values for 3 layers"),
        ("zamba2", r#"{"num_mem_blocks": 9}"#, "num_mem_blocks: 9 is not"),
        ("zamba2", r#"{"num_attention_heads": 5}"#, "num_attention_heads: 5 heads do not divide twice the width"),
        ("zamba2", r#"{"time_step_min": -1}"#, "time_step_min: -1 is not"),
        ("granitehybrid", r#"{"mamba_n_groups": 4}"#, "mamba_n_heads: 48 channels, 6 heads and 4 groups"),
        ("rwkv6", r#"{"head_size": 7}"#, "head_size: a width of 24 is no whole number of heads of 7"),
        ("rwkv6", r#"{"head_size_divisor": 4}"#, "head_size_divisor: only 8"),
        ("rwkv6", r#"{"time_mix_extra_dim": 0}"#, "time_mix_extra_dim: 0 is not"),
        ("rwkv7", r#"{"norm_bias": false, "norm_first": false}"#, "norm_bias: only true"),
        ("rwkv7", r#"{"norm_eps": 1e-5}"#, "norm_eps: with heads of 8 only"),
        ("rwkv7", r#"{"attn": {"layers": [1]}}"#, "attn: layers of attention"),
        ("rwkv7", r#"{"value_dim": [24, 24, 48]}"#, "value_dim: only the width of the model"),
        ("xlstm", r#"{"num_heads": 5}"#, "qk_dim_factor: a width of 12 does not divide into 5 heads"),
        ("xlstm", r#"{"slstm_at": [1]}"#, "slstm_at: layers with a scalar memory"),
        ("xlstm", r#"{"ffn_proj_factor": -1}"#, "ffn_proj_factor: -1 is not"),
        ("mamba3", r#"{"attn_layer_idx": [1], "rms_norm": false}"#, "attn_layer_idx: layers of attention"),
        ("mamba3", r#"{"ssm_cfg": {"headdim": 7}}"#, "ssm_cfg.headdim: 48 channels do not divide"),
        ("mamba3", r#"{"ssm_cfg": {"headdim": 8, "d_state": 3}}"#, "ssm_cfg.d_state: a state of 3 cannot turn"),
    ] {
        let message = refused(arch, changes);
        assert!(message.contains(expected), "{changes}: {message}");
        assert!(message.starts_with("dir/config.json"), "{message}");
    }
    let all = refused("llama", r#"{"hidden_size": -1, "vocab_size": 1.5, "rope_theta": "x", "intermediate_size": []}"#);
    assert_eq!(all.lines().count(), 5, "{all}");
}

#[test]
fn both_spellings_of_a_config_are_one() {
    let row = &ARCHS[0];
    let make = |changes: &str| {
        let mut settings = json(row.tiny);
        for (key, value) in json(changes).as_object().unwrap() {
            settings[key] = value.clone();
        }
        Config::build(row.name, &settings).unwrap().layers().to_vec()
    };
    let old = make(r#"{"rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}"#);
    let new = make(r#"{"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}}"#);
    assert_eq!(old, new);
    assert_ne!(old, make("{}"));
}

/// A GGUF file of a tiny model with its parts changed.
fn altered(
    arch: &str,
    metadata: impl Fn(&mut Vec<(String, Value)>),
    tensors: impl Fn(&mut Vec<(FileTensor, Vec<u8>)>),
) -> imaginal_models::Result<Loaded> {
    let model = Model::new(&tiny(arch), 1, &Device::Cpu).unwrap();
    let gguf = Gguf::from_bytes("m", model.to_gguf(None, &SaveOptions::default()).unwrap()).unwrap();
    let mut keys = gguf.metadata().to_values();
    metadata(&mut keys);
    let mut list: Vec<(FileTensor, Vec<u8>)> = gguf
        .tensors()
        .iter()
        .map(|t| (FileTensor { name: t.name.clone(), shape: t.shape.clone(), format: t.format }, t.bytes.to_vec()))
        .collect();
    tensors(&mut list);
    let entries: Vec<FileTensor> = list.iter().map(|t| t.0.clone()).collect();
    let mut writer = GgufWriter::to_memory("m", &keys, &entries).unwrap();
    for (entry, bytes) in &list {
        writer.tensor(&entry.name, bytes).unwrap();
    }
    Loaded::from_gguf_bytes("bad.gguf", writer.into_memory().unwrap(), &Device::Cpu)
}

fn set(keys: &mut Vec<(String, Value)>, key: &str, value: Option<Value>) {
    keys.retain(|(k, _)| k != key);
    keys.extend(value.map(|v| (key.to_owned(), v)));
}

#[test]
fn wrong_metadata_is_refused_by_name() {
    let cases: Vec<(&str, &str, Option<Value>, &str)> = vec![
        ("llama", "general.architecture", None, "general.architecture"),
        ("llama", "general.architecture", Some("nonesuch".into()), "\"nonesuch\" is not known"),
        ("llama", "llama.block_count", None, "llama.block_count: missing"),
        ("llama", "llama.block_count", Some(1_000_000_000u32.into()), "llama.block_count: 1000000000 is not"),
        ("llama", "llama.block_count", Some((-2i32).into()), "llama.block_count: -2 is not"),
        ("llama", "llama.block_count", Some("two".into()), "llama.block_count: \"two\" is not"),
        ("llama", "llama.attention.head_count", Some(5u32.into()), "llama.attention.head_count_kv: 2 does not divide"),
        ("llama", "llama.attention.value_length", Some(4u32.into()), "llama.attention.value_length: 4 differs"),
        ("llama", "llama.rope.dimension_count", Some(9u32.into()), "llama.rope.dimension_count: 9 is not an even"),
        ("llama", "llama.attention.layer_norm_rms_epsilon", Some(f32::NAN.into()), "layer_norm_rms_epsilon: NaN"),
        ("llama", "llama.embedding_length", Some(u64::MAX.into()), "llama.embedding_length: 18446744073709551615"),
        ("qwen3moe", "qwen3moe.expert_count", None, "qwen3moe.expert_count: missing"),
        ("qwen3moe", "qwen3moe.expert_used_count", Some(9u32.into()), "qwen3moe.expert_used_count: 9 experts"),
        ("deepseek2", "deepseek2.attention.key_length_mla", Some(8u32.into()), "key_length_mla: not more than the 8"),
        ("deepseek2", "deepseek2.attention.kv_lora_rank", None, "deepseek2.attention.kv_lora_rank: missing"),
        ("gpt-oss", "gpt-oss.swiglu_clamp_exp", Some("x".into()), "gpt-oss.swiglu_clamp_exp: \"x\""),
        ("mamba", "mamba.ssm.state_size", Some(0u32.into()), "mamba.ssm.state_size: 0"),
        ("mamba", "mamba.ssm.inner_size", None, "mamba.ssm.inner_size: missing"),
    ];
    for (arch, key, value, expected) in cases {
        let result = altered(arch, |keys| set(keys, key, value.clone()), |_| {});
        let message = result.map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(expected) && message.starts_with("bad.gguf"), "{key}: {message}");
    }
}

#[test]
fn wrong_tensors_are_refused_all_at_once() {
    let result = altered(
        "llama",
        |_| {},
        |list| {
            list.retain(|t| t.0.name != "blk.1.ffn_up.weight");
            let q = list.iter_mut().find(|t| t.0.name == "blk.0.attn_q.weight").unwrap();
            q.0.shape = vec![12, 48];
            let norm = list.iter_mut().find(|t| t.0.name == "output_norm.weight").unwrap();
            norm.0.format = Format::I32;
            list.push((FileTensor { name: "blk.7.extra".into(), shape: vec![1], format: Format::F32 }, vec![0; 4]));
        },
    );
    let Err(Error::Tensors { problems, .. }) = result else { panic!() };
    let mut found: Vec<String> = problems.iter().map(ToString::to_string).collect();
    found.sort();
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found[0].starts_with("blk.0.attn_q.weight: its shape is [12, 48], not the [24, 24]"), "{found:?}");
    assert!(found[1].starts_with("blk.1.ffn_up.weight: missing"), "{found:?}");
    assert!(found[2].starts_with("blk.7.extra: superfluous"), "{found:?}");
    assert!(found[3].starts_with("output_norm.weight: i32 is no format for weights"), "{found:?}");

    // Decay rates must be negative.
    let result = altered(
        "mamba",
        |_| {},
        |list| {
            let a = list.iter_mut().find(|t| t.0.name == "blk.1.ssm_a").unwrap();
            a.1[..4].copy_from_slice(&1f32.to_le_bytes());
        },
    );
    let message = result.map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("blk.1.ssm_a") && message.contains("negative"), "{message}");
}

#[test]
fn old_files_of_rwkv_have_their_blends_one_by_one() {
    for (arch, names) in [("rwkv6", &["w", "k", "v", "r", "g"][..]), ("rwkv7", &["r", "w", "k", "v", "a", "g"])] {
        let split = |list: &mut Vec<(FileTensor, Vec<u8>)>| {
            let (fused, rest): (Vec<_>, _) = std::mem::take(list).into_iter().partition(|t| t.0.name.contains("fused"));
            *list = rest;
            for (entry, bytes) in fused {
                let one = bytes.len() / names.len();
                for (name, bytes) in names.iter().zip(bytes.chunks(one)) {
                    let name = entry.name.replace("fused", name);
                    list.push((FileTensor { name, shape: vec![one / 4], format: Format::F32 }, bytes.to_vec()));
                }
            }
        };
        let loaded = altered(arch, |_| {}, split).unwrap();
        let own = Model::new(&tiny(arch), 1, &Device::Cpu).unwrap();
        let ids = tokens(20, own.config().vocab(), 3);
        assert_eq!(logits(&loaded.model, &ids), logits(&own, &ids));
    }
}

#[test]
fn a_tokenizer_larger_than_the_model_is_refused() {
    let names: Vec<String> = (0..100).map(|i| format!("t{i}")).collect();
    let result = altered(
        "llama",
        |keys| {
            set(keys, "tokenizer.ggml.model", Some("gpt2".into()));
            set(keys, "tokenizer.ggml.pre", Some("qwen2".into()));
            set(keys, "tokenizer.ggml.tokens", Some(names.clone().into()));
            set(keys, "tokenizer.ggml.merges", Some(Vec::<String>::new().into()));
        },
        |_| {},
    );
    let message = result.map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("tokenizer") && message.contains("100") && message.contains("67"), "{message}");
}

#[test]
fn a_directory_without_a_model_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Loaded::open(dir.path(), &Default::default()).map(|_| ()).unwrap_err().to_string();
    assert!(open().contains("config.json"), "{}", open());
    std::fs::write(dir.path().join("config.json"), "{").unwrap();
    assert!(open().contains("config.json"));
    let mut settings = json(ARCHS[0].tiny);
    settings["model_type"] = "llama".into();
    std::fs::write(dir.path().join("config.json"), settings.to_string()).unwrap();
    assert!(open().contains("model.safetensors"), "{}", open());
    assert!(SafeTensors::open_dir(dir.path(), Default::default()).is_err());
}

/// The rule of the table: nothing outside it asks which architecture it is.
#[test]
fn nothing_compares_architecture_names_outside_the_table() {
    fn sources(dir: &Path, all: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, all);
            } else if path.extension().is_some_and(|e| e == "rs") {
                all.push(path);
            }
        }
    }
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(crates).unwrap() {
        let path = entry.unwrap().path();
        // A tokenizer's kind in GGUF files happens to be called like an architecture.
        if path.join("src").is_dir() && !path.ends_with("files") {
            sources(&path.join("src"), &mut files);
        }
    }
    assert!(files.len() > 50);
    let names = ARCHS.iter().flat_map(|a| a.hf.iter().flat_map(|h| [h.model_type, h.class]).chain([a.name]));
    let names: Vec<String> = names.map(|n| format!("\"{n}\"")).collect();
    let comparisons = ["==", "!=", "=>", "matches!", "contains", "starts_with", "ends_with", "match "];
    for file in files.iter().filter(|f| !f.ends_with("models/src/arch.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        for (i, line) in text.lines().enumerate() {
            let names_one = names.iter().any(|n| line.contains(n.as_str()));
            let compares = comparisons.iter().any(|c| line.contains(c)) && !line.trim_start().starts_with("assert");
            assert!(!(names_one && compares), "{}:{}: {}", file.display(), i + 1, line.trim());
        }
    }
}

#[test]
fn unknown_architectures_load_by_what_their_files_hold() {
    let renamed = |keys: &mut Vec<(String, Value)>| {
        for (key, value) in keys.iter_mut() {
            match key.strip_prefix("qwen3.") {
                Some(rest) => *key = format!("novel.{rest}"),
                None if key == "general.architecture" => *value = "novel".into(),
                None => {}
            }
        }
    };
    let loaded = altered("qwen3", renamed, |_| {}).unwrap();
    let config = loaded.model.config();
    assert_eq!((config.arch().name, config.stands_for()), ("qwen3", Some("novel")));
    let own = Model::new(&tiny("qwen3"), 1, &Device::Cpu).unwrap();
    let ids = tokens(20, own.config().vocab(), 3);
    assert_eq!(logits(&loaded.model, &ids), logits(&own, &ids));
    // One tensor more, and it is no longer what it seems.
    let more = |list: &mut Vec<(FileTensor, Vec<u8>)>| {
        let entry = FileTensor { name: "blk.0.other.weight".into(), shape: vec![2], format: Format::F32 };
        list.push((entry, vec![0; 8]));
    };
    let message = altered("qwen3", renamed, more).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("\"novel\" is not known"), "{message}");
}

#[test]
fn the_page_of_architectures_is_that_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/architectures.md");
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    let write = "run: imaginal list --architectures --markdown > docs/architectures.md";
    assert!(page == imaginal_models::arch::markdown(), "docs/architectures.md is not that of the table; {write}");
}
