//! What a configuration's tensors are, and what a GGUF file says of it.

use imaginal_files::gguf::Value;
use imaginal_nn::{AttentionConfig, Over, RopeScaling};

use super::{Config, Extra, eps_key};
use crate::arch::{Arch, Factor, NormName};
use crate::blocks::{BlockConfig, BlockRow, Keys};
use crate::fields::Key;
use crate::tensors::{Arrange, Map, Specs, Stored, TensorSpec};
use crate::{Error, Result};

impl Config {
    /// All tensors of the model, in the order of a file.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let (Arch { outside, embedding, .. }, norm) = (self.arch, &self.norm);
        let mut specs = Specs::new();
        specs.norms_less_one = self.arch.norm_less_one;
        specs.add("token_embd.weight", outside.embedding, &[self.vocab, self.hidden], true);
        if let Some(positions) = embedding.positions {
            let [skipped, hidden] = [self.skipped_positions, self.hidden];
            let stored = Stored::rows(positions.hf, &[self.context + skipped, hidden], skipped, self.context);
            specs.add_stored("position_embd.weight", vec![stored], &[self.context, hidden], true);
        }
        if let (Some(types), true) = (embedding.types, self.types > 0) {
            specs.add("token_types.weight", &[types], &[self.types, self.hidden], true);
        }
        if let Some(n) = embedding.norm {
            specs.norm(n.gguf, &[n.hf], &[self.hidden], *norm);
        }
        if let Some(streams) = &self.streams {
            streams.tensors(self.vocab, &mut specs);
        }
        for (i, layer) in self.layers.iter().enumerate() {
            specs.within(format!("blk.{i}"), format!("{}.{i}", outside.layers));
            if let Some(streams) = &self.streams {
                streams.layer_tensors(&mut specs);
            }
            for (sub, block) in self.layout.iter().zip(layer) {
                let add = |specs: &mut Specs, name: &'static Option<NormName>| {
                    if let Some(n) = NormName::in_layer(name, i) {
                        specs.norm(n.gguf, &[n.hf], &[self.hidden], n.kind.unwrap_or(*norm));
                    }
                };
                add(&mut specs, &sub.norm);
                sub.block.tensors(block, &mut specs);
                add(&mut specs, &sub.post_norm);
                add(&mut specs, &sub.sum_norm);
            }
        }
        specs.within(String::new(), String::new());
        if !outside.norm.is_empty() {
            specs.norm(outside.gguf_norm, outside.norm, &[self.hidden], *norm);
        }
        if let Some(row) = &self.arch.encoder {
            self.head.tensors(row, self.hidden, self.vocab, self.tied, &mut specs);
        } else {
            if !self.tied {
                specs.add("output.weight", outside.head, &[self.vocab, self.hidden], true);
            }
            if !outside.head_bias.is_empty() {
                specs.add("output.bias", outside.head_bias, &[self.vocab], false);
            }
        }
        for (end, factors) in &self.hf_factors {
            for spec in specs.list.iter_mut().filter(|spec| spec.name.ends_with(end)) {
                match factors.as_slice() {
                    [factor] => spec.hf_map = Map::Times(*factor),
                    factors => self.scale_rows(spec, factors),
                }
            }
        }
        specs.list
    }

    /// The input projection of a state space of heads has a factor for each of its parts.
    fn scale_rows(&self, spec: &mut TensorSpec, factors: &[f64]) {
        let mamba = self.layers.iter().flatten().find_map(|block| match block {
            BlockConfig::Mamba2(c) => Some(c),
            _ => None,
        });
        let Some(c) = mamba else { return };
        let parts = [c.inner, c.inner, c.groups * c.state, c.groups * c.state, c.heads];
        let rows: Vec<(usize, f64)> = parts.into_iter().zip(factors.iter().copied()).collect();
        spec.hf.iter_mut().for_each(|way| way.arrange = Some(Arrange::Scaled(rows.clone())));
    }

    /// The same model with the rows of queries and keys, and value heads, in the order of GGUF files.
    pub(crate) fn in_gguf_order(mut self) -> Config {
        for layer in &mut self.layers {
            for (sub, block) in self.layout.iter().zip(layer) {
                match (sub.block.of(block), block) {
                    (BlockRow::Attention(row), BlockConfig::Attention(AttentionConfig { rope: Some(rope), .. })) => {
                        rope.style = row.gguf_rope;
                    }
                    (BlockRow::DeltaNet(row), BlockConfig::DeltaNet(c)) => c.order = row.gguf_order,
                    _ => {}
                }
            }
        }
        self
    }

    /// The model's metadata in a GGUF file, without that of the tokenizer.
    ///
    /// # Errors
    /// [`Error::Argument`] if the format has no place for something.
    pub fn to_gguf(&self) -> Result<Vec<(String, Value)>> {
        let mut keys = Keys::new(self.layers.len(), self.eps);
        keys.set("context_length", self.context.min(u32::MAX as usize) as u32);
        keys.set("embedding_length", self.hidden as u32);
        keys.set("block_count", self.layers.len() as u32);
        keys.set("vocab_size", self.vocab as u32);
        for key in eps_key(self.arch).gguf {
            keys.set(key, self.eps as f32);
        }
        let Arch { scales: row, .. } = self.arch;
        for (factor, value) in [
            (row.embedding, self.scales.embedding),
            (row.residual, self.scales.residual),
            (row.logits, self.scales.logits),
        ] {
            match factor {
                // Other programs would compute without it.
                Factor::IfTied(_) | Factor::Times(Key { gguf: [], .. }) | Factor::Over(Key { gguf: [], .. })
                    if value != 1.0 =>
                {
                    let what = "factors of embeddings and logits have no place in a GGUF file of this architecture";
                    return Err(Error::Argument(what.into()));
                }
                Factor::Times(Key { gguf: [key, ..], .. }) => keys.set(key, value as f32),
                Factor::Over(Key { gguf: [key, ..], .. }) => keys.set(key, (1.0 / value) as f32),
                _ => {}
            }
        }
        let mut mixes = self.mixes.iter().flatten().flatten();
        if let Some(first) = mixes.next() {
            if first.result != 1.0 || mixes.any(|mix| mix != first) {
                let what = "factors of single blocks in the residual stream have no place in a GGUF file";
                return Err(Error::Argument(what.into()));
            }
            keys.set("residual_scale", first.read as f32);
        }
        if let (Some(Key { gguf: [key, ..], .. }), Some(cap)) = (row.softcap, self.scales.softcap) {
            keys.set(key, cap as f32);
        }
        if let (Some(Key { gguf: [key, ..], .. }), Some(every)) = (row.halved, self.scales.halved) {
            keys.set(key, every as u32);
        }
        if let Some(streams) = &self.streams {
            streams.write(&mut keys).map_err(Error::Argument)?;
        }
        for (at, sub) in self.layout.iter().enumerate() {
            let blocks: Vec<(usize, &BlockConfig)> =
                self.layers.iter().enumerate().filter_map(|(i, l)| Some((i, l.get(at)?))).collect();
            sub.block.write(&blocks, &mut keys).map_err(Error::Argument)?;
        }
        // Readers of the format ask for the keys of attention and feed-forward of every model.
        for key in ["feed_forward_length", "attention.head_count"] {
            if !keys.has(key) {
                keys.set(key, 0u32);
            }
        }
        for variant in self.arch.variants {
            if let Some((Key { gguf: [key, ..], .. }, value)) = variant.key {
                keys.set(key, value == std::ptr::eq(variant.layer, self.layout));
            }
        }
        let name = self.arch.gguf_as.unwrap_or(self.arch.name);
        let mut all = vec![("general.architecture".to_owned(), Value::from(name))];
        if let Some(encoder) = &self.arch.encoder {
            keys.set("attention.causal", false);
            for (key, value) in self.head.write(encoder).map_err(Error::Argument)? {
                keys.set(key, value);
            }
        }
        if let Some(number) = self.pooling.map(|p| p.kind.to_gguf()) {
            if number == 0 {
                return Err(Error::Argument("the model's way of pooling has no place in a GGUF file".into()));
            }
            keys.set("pooling_type", number);
        }
        if self.types > 0 {
            all.push(("tokenizer.ggml.token_type_count".into(), (self.types as u32).into()));
        }
        if let Some(name) = &self.name {
            all.push(("general.name".into(), name.clone().into()));
        }
        all.extend(keys.into_values().map(|(key, value)| (format!("{name}.{key}"), value)));
        Ok(all)
    }

    /// Tensors that a GGUF file has and the model has not.
    pub(crate) fn gguf_extras(&self) -> Vec<Extra> {
        let mut extras = Vec::new();
        let vector = |name: &str, values: &[f32]| {
            let (shape, values) = (vec![values.len()], Some(values.to_vec()));
            Extra { name: name.to_owned(), shape, values }
        };
        // Those of layers with a window may be of another kind.
        let mut ropes = self.layers.iter().flatten().filter_map(BlockConfig::rope);
        let rope = ropes.find(|rope| rope.scaling != RopeScaling::None);
        match rope.map(|rope| &rope.scaling) {
            Some(RopeScaling::Factors(factors)) => extras.push(vector("rope_freqs.weight", factors)),
            Some(RopeScaling::Long { short, long, .. }) => {
                extras.push(vector("rope_factors_short.weight", short));
                extras.push(vector("rope_factors_long.weight", long));
            }
            _ => {}
        }
        for (i, layer) in self.layers.iter().enumerate() {
            for block in layer {
                match block {
                    // The format knows no Mamba without this bias.
                    BlockConfig::Mamba(c) if !c.conv_bias => {
                        extras.push(Extra {
                            name: format!("blk.{i}.ssm_conv1d.bias"),
                            shape: vec![c.inner],
                            values: None,
                        });
                    }
                    // Nor a first layer of RWKV-7 without a share of its own values.
                    BlockConfig::Rwkv7(c) if c.value_rank.is_none() => {
                        let shapes = [vec![c.hidden], vec![c.rate_rank, c.hidden], vec![c.hidden, c.rate_rank]];
                        extras.extend(shapes.into_iter().enumerate().map(|(n, shape)| Extra {
                            name: format!("blk.{i}.time_mix_v{n}.weight"),
                            shape,
                            values: None,
                        }));
                    }
                    // Nor layers without keys and values; it does not use them.
                    BlockConfig::Attention(c) if c.shared.is_some() => {
                        let matrix = vec![c.kv_heads * c.head_dim, c.hidden];
                        let mut add = |name: &str, shape| {
                            extras.push(Extra { name: format!("blk.{i}.{name}.weight"), shape, values: None });
                        };
                        add("attn_k", matrix.clone());
                        add("attn_v", matrix);
                        if c.qk_norm.is_some_and(|n| n.over == Over::Head) {
                            add("attn_k_norm", vec![c.head_dim]);
                        }
                    }
                    _ => {}
                }
            }
            if let Some(streams) = self.streams.as_ref().filter(|s| !s.inputs.scaled) {
                let hidden = streams.altup.hidden;
                let (name, values) = (format!("blk.{i}.altup_correct_scale.weight"), Some(vec![1.0; hidden]));
                extras.push(Extra { name, shape: vec![hidden], values });
            }
        }
        extras
    }
}
