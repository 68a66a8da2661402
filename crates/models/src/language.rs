use imaginal_nn::State;
use imaginal_tensor::{Device, Tensor};

use crate::Result;
use crate::decoder::{Model, Rows};
use crate::state::ModelState;

/// What generating needs of a model; tests can fake it.
pub trait LanguageModel {
    /// Its memory.
    type State: State;

    /// Number of tokens it knows.
    fn vocab(&self) -> usize;

    /// How many tokens it was made for; `None` if there is no end.
    fn context(&self) -> Option<usize>;

    /// An empty state for one sequence.
    ///
    /// # Errors
    /// It does not fit in memory.
    fn state(&self) -> Result<Self::State>;

    /// Feeds `tokens` (at least one) and returns the logits `[vocab]` of the token after the last: f32, on the CPU.
    ///
    /// # Errors
    /// A token that is not in the vocabulary, or a failing device; the state is then what it was.
    fn next(&self, tokens: &[u32], state: &mut Self::State) -> Result<Tensor>;
}

impl LanguageModel for Model {
    type State = ModelState;

    fn vocab(&self) -> usize {
        self.config().vocab()
    }

    fn context(&self) -> Option<usize> {
        self.config().has_attention().then_some(self.config().context())
    }

    fn state(&self) -> Result<ModelState> {
        Model::state(self, 1)
    }

    fn next(&self, tokens: &[u32], state: &mut ModelState) -> Result<Tensor> {
        let logits = self.forward(&Model::ids(tokens)?, Some(state), Rows::Last)?;
        Ok(logits.to_device(&Device::Cpu)?.reshape(self.config().vocab())?)
    }
}
