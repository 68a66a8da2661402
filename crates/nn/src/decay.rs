use std::sync::{Arc, Mutex};

use imaginal_tensor::{Device, Result, Tensor, TensorId, is_grad_enabled};

use crate::{Init, Module, Param, Slot, Source};

/// Decay rates that are trained as their logarithms.
#[derive(Clone, Debug)]
pub(crate) struct DecayRates {
    log: Param,
    kept: Arc<Mutex<Option<(TensorId, Tensor)>>>,
}

impl DecayRates {
    /// Takes the logarithms called `name` from the source.
    ///
    /// # Errors
    /// The source does not have them in this shape.
    pub fn new(source: &mut dyn Source, name: &str, shape: &[usize], init: Init) -> Result<Self> {
        Ok(DecayRates { log: source.param(name, shape, init)?, kept: Arc::default() })
    }

    /// `A = −exp(A_log)`, kept while the parameter does not change and no gradient is wanted.
    ///
    /// # Errors
    /// The device refuses.
    pub fn get(&self) -> Result<Tensor> {
        let log = self.log.get();
        if is_grad_enabled() && log.tracks_grad() {
            return log.exp()?.neg();
        }
        let mut kept = self.kept.lock().unwrap_or_else(|e| e.into_inner());
        match &*kept {
            Some((id, a)) if *id == log.id() => Ok(a.clone()),
            _ => {
                let a = log.exp()?.neg()?;
                *kept = Some((log.id(), a.clone()));
                Ok(a)
            }
        }
    }

    /// Where they live.
    pub fn device(&self) -> Device {
        self.log.get().device().clone()
    }
}

impl Module for DecayRates {
    /// The one tensor, under `prefix` as its whole name.
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        visit(prefix.to_string(), Slot::Param(&self.log));
    }
}
