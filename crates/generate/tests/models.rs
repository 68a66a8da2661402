//! Sessions over a tiny model of every architecture: the same tokens whatever the session has seen before, and however
//! the prompt is fed.

use imaginal_files::Json;
use imaginal_generate::{GenerateOptions, SamplerOptions, Session};
use imaginal_models::{ARCHS, Config, Model, Rows};
use imaginal_tensor::{Device, no_grad};

fn models() -> Vec<Model> {
    let build = |arch: &imaginal_models::Arch| {
        let settings = Json::parse("settings", arch.tiny.as_bytes()).unwrap();
        Model::new(&Config::build(arch.name, settings.root()).unwrap(), 9, &Device::Cpu).unwrap()
    };
    ARCHS.iter().filter(|a| a.encoder.is_none()).map(build).collect()
}

fn options(sampler: SamplerOptions, chunk: usize) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(12), sampler, chunk, ..GenerateOptions::default() }
}

#[test]
fn greedy_takes_what_the_whole_text_at_once_makes_most_probable() {
    for model in models() {
        let mut text: Vec<u32> = vec![5, 17, 33, 2, 2, 60];
        let mut session = Session::new(&model).unwrap();
        let (_, ids, _) = session.generate(&text, None, options(SamplerOptions::greedy(), 4)).unwrap();
        assert_eq!(ids.len(), 12);
        for id in ids {
            let logits = no_grad(|| model.forward(&Model::ids(&text).unwrap(), None, Rows::Last)).unwrap();
            let logits = logits.to_vec::<f32>().unwrap();
            // Two paths may round differently, so that the choice need only be as good.
            let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert!(logits[id as usize] >= best - 1e-4, "{}", model.config().arch().name);
            text.push(id);
        }
    }
}

#[test]
fn the_past_of_a_session_does_not_show() {
    for model in models() {
        let prompt: Vec<u32> = (0..300).map(|i| i * 7 % 67).collect();
        let sampler = SamplerOptions { seed: 4, repeat_penalty: 1.1, ..SamplerOptions::default() };
        let fresh = |prompt: &[u32], chunk| {
            Session::new(&model).unwrap().generate(prompt, None, options(sampler.clone(), chunk)).unwrap().1
        };
        let mut session = Session::new(&model).unwrap();
        let (_, first, summary) = session.generate(&prompt, None, options(sampler.clone(), 512)).unwrap();
        assert_eq!(summary.reused_tokens, 0);
        assert_eq!(first, fresh(&prompt, 512));

        // Goes on, as a chat does: everything but the new tokens is known.
        let mut longer = prompt.clone();
        longer.extend(&first);
        longer.extend([1, 2, 3]);
        let (_, second, summary) = session.generate(&longer, None, options(sampler.clone(), 512)).unwrap();
        assert_eq!(summary.reused_tokens, prompt.len() + first.len() - 1);
        assert_eq!(second, fresh(&longer, 64));

        // Turns off in the middle of what was seen.
        let mut other = prompt[..290].to_vec();
        other.extend([9, 9, 9]);
        let (_, third, summary) = session.generate(&other, None, options(sampler.clone(), 512)).unwrap();
        assert!(summary.reused_tokens >= 256 && summary.reused_tokens <= 290, "{summary:?}");
        assert_eq!(third, fresh(&other, 512));
    }
}
