//! LongRoPE turns keys otherwise once a text is longer than the original context: what was remembered until then must be
//! computed again, and going back must not keep it.

use std::path::Path;

use imaginal_models::{LoadOptions, Loaded, Model, Rows, State};
use imaginal_tensor::{Device, Tensor, no_grad};

/// Has factors of its own beyond 16 tokens.
fn model() -> Model {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/phi3-longrope");
    Loaded::open(&dir, &LoadOptions::default()).unwrap().model
}

fn tokens(n: u32) -> Vec<u32> {
    (0..n).map(|i| 4 + i * 7 % 60).collect()
}

/// The logits after the last token of a text read at once.
fn fresh(model: &Model, text: &[u32]) -> Vec<f32> {
    no_grad(|| model.forward(&Model::ids(text).unwrap(), None, Rows::Last)).unwrap().to_vec().unwrap()
}

fn near(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 2e-5)
}

#[test]
fn a_growing_text_is_one_that_was_read_at_once() {
    let model = model();
    let text = tokens(30);
    for piece in [1, 3, 5] {
        let mut state = model.state(1).unwrap();
        for part in text.chunks(piece) {
            let ids = Model::ids(part).unwrap();
            let logits = model.forward(&ids, Some(&mut state), Rows::All).unwrap();
            assert_eq!(logits.shape(), [1, part.len(), model.config().vocab()]);
            let last = logits.narrow(1, part.len() - 1, 1).unwrap().to_vec::<f32>().unwrap();
            assert!(near(&last, &fresh(&model, &text[..state.len()])), "{} by {piece}", state.len());
        }
    }
    // The factors differ, or the above shows nothing.
    let mut state = model.state(1).unwrap();
    let short = model.forward(&Model::ids(&text[..16]).unwrap(), Some(&mut state), Rows::All).unwrap();
    let long = no_grad(|| model.forward(&Model::ids(&text).unwrap(), None, Rows::All)).unwrap();
    let row = |x: &Tensor| x.narrow(1, 15, 1).unwrap().to_vec::<f32>().unwrap();
    assert!(!near(&row(&short), &row(&long)));
}

#[test]
fn going_back_forks_and_saved_states_keep_what_still_holds() {
    let model = model();
    let text = tokens(30);
    let feed = |state: &mut _, text: &[u32]| {
        let logits = model.forward(&Model::ids(text).unwrap(), Some(state), Rows::Last).unwrap();
        logits.to_vec::<f32>().unwrap()
    };
    let mut state = model.state(1).unwrap();
    feed(&mut state, &text[..12]);
    assert_eq!(state.rewind_point(9), 9);
    state.rewind(9).unwrap();
    let mut bytes = Vec::new();
    state.save(&mut bytes).unwrap();
    let mut restored = model.state(1).unwrap();
    restored.restore(&mut bytes.as_slice()).unwrap();
    let mut fork = state.clone();
    for other in [&mut state, &mut restored, &mut fork] {
        assert!(near(&feed(other, &text[9..20]), &fresh(&model, &text[..20])));
        assert_eq!((other.rewind_point(18), other.rewind_point(17), other.rewind_point(16)), (18, 17, 0));
        other.rewind(17).unwrap();
        assert!(near(&feed(other, &text[17..19]), &fresh(&model, &text[..19])));
    }
    let mut long = Vec::new();
    state.save(&mut long).unwrap();
    let mut restored = model.state(1).unwrap();
    restored.restore(&mut long.as_slice()).unwrap();
    assert!(near(&feed(&mut restored, &text[19..25]), &fresh(&model, &text[..25])));
    restored.rewind(0).unwrap();
    assert!(near(&feed(&mut restored, &text[..8]), &fresh(&model, &text[..8])));
    for cut in [10, 30, 40, 44] {
        assert!(model.state(1).unwrap().restore(&mut &bytes[..cut]).is_err());
    }
}

#[test]
fn two_texts_side_by_side_turn_together() {
    let model = model();
    let (a, b) = (tokens(25), tokens(50)[25..].to_vec());
    let ids = |from: usize, to: usize| {
        Tensor::from_vec([&a[from..to], &b[from..to]].concat(), [2, to - from], &Device::Cpu).unwrap()
    };
    let mut state = model.state(2).unwrap();
    for part in [0..7, 7..13, 13..24, 24..25] {
        let (last, to) = (model.config().vocab(), part.end);
        let logits =
            model.forward(&ids(part.start, to), Some(&mut state), Rows::Last).unwrap().to_vec::<f32>().unwrap();
        assert!(near(&logits[..last], &fresh(&model, &a[..to])), "{part:?}");
        assert!(near(&logits[last..], &fresh(&model, &b[..to])), "{part:?}");
    }
}
