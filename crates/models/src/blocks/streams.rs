//! What goes around the layers of Gemma 3n: several residual streams, and inputs for each layer.

use imaginal_nn::{Activation, AltUpConfig, LayerInputsConfig, NormKind};

use super::{ActivationRow, Keys, Reader};
use crate::config::WIDTH;
use crate::fields::Key;
use crate::tensors::{Specs, Stored};

/// Several residual streams, of which layers compute with one, and inputs for each layer.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamsConfig {
    /// The streams.
    pub altup: AltUpConfig,
    /// The inputs.
    pub inputs: LayerInputsConfig,
}

const STREAMS: Key = Key::new(&["altup.num_inputs"], &["altup_num_inputs"]);
const ACTIVE: Key = Key::new(&["altup.active_idx"], &["altup_active_idx"]);
const SCALED: Key = Key::new(&[], &["altup_correct_scale"]);
const INPUT_WIDTH: Key = Key::new(&["embedding_length_per_layer_input"], &["hidden_size_per_layer_input"]);
const INPUT_VOCAB: Key = Key::new(&[], &["vocab_size_per_layer_input"]);

const TABLE: &str = "per_layer_token_embd.weight";
const MOST_STREAMS: usize = 64;
const ACTIVATION: ActivationRow = ActivationRow::Named("hidden_activation", Activation::Gelu);
const MOST_TOKENS: usize = 1 << 24;

impl StreamsConfig {
    pub(crate) fn read(r: &Reader, vocab: usize) -> StreamsConfig {
        let (f, hidden, eps) = (r.f, r.shared.hidden, r.shared.eps);
        let streams = f.size_from(&STREAMS, Some(4), 2, MOST_STREAMS);
        let active = f.size_from(&ACTIVE, Some(0), 0, MOST_STREAMS);
        if active >= streams {
            f.conflict(f.name(&ACTIVE), format!("there is no stream {active} of {streams}"));
        }
        let width = f.size(&INPUT_WIDTH, Some(256), WIDTH);
        if width.saturating_mul(r.shared.layers) > WIDTH {
            f.conflict(f.name(&INPUT_WIDTH), format!("{width} for {} layers is wider than {WIDTH}", r.shared.layers));
        }
        StreamsConfig {
            altup: AltUpConfig { hidden, streams, active: active.min(streams - 1), eps },
            inputs: LayerInputsConfig {
                hidden,
                layers: r.shared.layers,
                width,
                // The table of GGUF files has a row for each token, of zeros where the original has none.
                vocab: match f.is_gguf() {
                    true => r.tensors.rows(TABLE).filter(|&rows| rows <= vocab).unwrap_or(vocab),
                    false => f.size(&INPUT_VOCAB, Some(vocab), MOST_TOKENS).min(vocab),
                },
                activation: ACTIVATION.read(r),
                scaled: f.is_gguf() || f.flag(&SCALED, true),
                eps,
            },
        }
    }

    /// Names the tensors outside the layers.
    pub(crate) fn tensors(&self, vocab: usize, specs: &mut Specs) {
        let StreamsConfig { altup: AltUpConfig { hidden, streams, .. }, inputs } = self;
        let shape = [streams - 1, *hidden, *hidden];
        for (name, hf) in [("altup_proj", "altup_projections"), ("altup_unembd_proj", "altup_unembed_projections")] {
            let each = Stored::each(streams - 1, format!("model.{hf}."), ".weight", &shape[1..]);
            specs.add_stored(&format!("{name}.weight"), vec![each], &shape, true);
        }
        let all = inputs.layers * inputs.width;
        let shape = [inputs.vocab, all];
        let hf = Stored::whole("model.embed_tokens_per_layer.weight", &shape);
        let gguf = Stored::begin(TABLE, &[vocab, all], inputs.vocab);
        specs.add_ways(TABLE, vec![gguf], vec![hf], &shape, true);
        specs.linear("per_layer_model_proj", "model.per_layer_model_projection", [all, *hidden], false, None);
        specs.norm("per_layer_proj_norm", &["model.per_layer_projection_norm"], &[inputs.width], NormKind::Rms);
    }

    /// Names the tensors of a layer.
    pub(crate) fn layer_tensors(&self, specs: &mut Specs) {
        let (AltUpConfig { hidden, streams, .. }, width) = (&self.altup, self.inputs.width);
        specs.norm("altup_router_norm", &["altup.router_norm"], &[*hidden], NormKind::Rms);
        specs.linear("altup_router", "altup.modality_router", [*streams, *hidden], false, None);
        specs.linear("altup_predict_coef", "altup.prediction_coefs", [streams * streams, *streams], false, None);
        specs.linear("altup_correct_coef", "altup.correction_coefs", [*streams, *streams], false, None);
        if self.inputs.scaled {
            specs.add("altup_correct_scale.weight", &["altup.correct_output_scale"], &[*hidden], false);
        }
        specs.linear("inp_gate", "per_layer_input_gate", [width, *hidden], false, None);
        specs.linear("proj", "per_layer_projection", [*hidden, width], false, None);
        specs.norm("post_norm", &["post_per_layer_input_norm"], &[*hidden], NormKind::Rms);
    }

    /// What GGUF metadata says.
    ///
    /// # Errors
    /// In words, what the format has no place for.
    pub(crate) fn write(&self, keys: &mut Keys) -> Result<(), String> {
        keys.set("altup.num_inputs", self.altup.streams as u32);
        keys.set("altup.active_idx", self.altup.active as u32);
        keys.set("embedding_length_per_layer_input", self.inputs.width as u32);
        ACTIVATION.write(self.inputs.activation, keys)
    }
}
