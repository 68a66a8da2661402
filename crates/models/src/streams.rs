use imaginal_nn::{AltUp, LayerInput, LayerInputs, Module, Result, Slot, Source, Streams as Ends};
use imaginal_tensor::Tensor;

use crate::blocks::StreamsConfig;

/// Several residual streams around layers that compute with one of them, and inputs for each layer.
#[derive(Debug)]
pub(crate) struct Streams {
    ends: Ends,
    inputs: LayerInputs,
    layers: Vec<(AltUp, LayerInput)>,
}

/// The streams on their way through the layers.
pub(crate) struct Flow<'a> {
    streams: &'a Streams,
    /// `[b, t, streams, hidden]`; within a layer what was predicted.
    all: Tensor,
    /// `[b, t, layers, width]`.
    inputs: Tensor,
}

impl Streams {
    /// What lies outside the layers; those follow by [`Streams::add_layer`].
    pub fn new(source: &mut dyn Source, c: &StreamsConfig) -> Result<Self> {
        Ok(Streams {
            ends: Ends::new(source, &c.altup)?,
            inputs: LayerInputs::new(source, &c.inputs)?,
            layers: Vec::with_capacity(c.inputs.layers),
        })
    }

    /// Builds the part of the next layer.
    pub fn add_layer(&mut self, source: &mut dyn Source, prefix: &str, c: &StreamsConfig) -> Result<()> {
        let input = LayerInput::new(source, prefix, &c.inputs)?;
        self.layers.push((AltUp::new(source, prefix, &c.altup)?, input));
        Ok(())
    }

    /// Streams of tokens `ids` (u32 `[b, t]`) with embeddings `x[b, t, hidden]`.
    pub fn begin(&self, ids: &Tensor, x: &Tensor) -> Result<Flow<'_>> {
        Ok(Flow { streams: self, all: self.ends.spread(x)?, inputs: self.inputs.forward(ids, x)? })
    }

    /// The parameters outside the layers.
    pub fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.ends.slots(prefix, visit);
        self.inputs.slots(prefix, visit);
    }

    /// The parameters of a layer.
    pub fn layer_slots(&self, layer: usize, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        let (altup, input) = &self.layers[layer];
        altup.slots(prefix, visit);
        input.slots(prefix, visit);
    }
}

impl Flow<'_> {
    /// What a layer computes with, `[b, t, hidden]`.
    pub fn enter(&mut self, layer: usize) -> Result<Tensor> {
        let (altup, _) = &self.streams.layers[layer];
        self.all = altup.predict(&self.all)?;
        altup.active(&self.all)
    }

    /// Takes over what a layer has made of that.
    pub fn leave(&mut self, layer: usize, x: &Tensor) -> Result<()> {
        let (altup, input) = &self.streams.layers[layer];
        let all = altup.correct(&self.all, x)?;
        let own = self.inputs.narrow(2, layer, 1)?.squeeze(2)?;
        let added = input.forward(&altup.active(&all)?, &own)?;
        // All streams but the first get it.
        let others = all.narrow(2, 1, all.dim(2)? - 1)?.add(&added.unsqueeze(2)?)?;
        self.all = Tensor::cat(&[&all.narrow(2, 0, 1)?, &others], 2)?;
        Ok(())
    }

    /// One stream again, `[b, t, hidden]`, of the tokens that are wanted.
    pub fn end(self, wanted: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        self.streams.ends.merge(&wanted(&self.all)?)
    }
}
