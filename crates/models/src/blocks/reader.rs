//! What blocks are read from.

use imaginal_files::Gguf;

use super::Bias;
use crate::config::{Shared, WIDTH};
use crate::fields::{Fields, Key};

/// What a block is read from: a file's fields and tensors, for some of its layers.
#[derive(Copy, Clone)]
pub(crate) struct Reader<'a> {
    pub f: &'a Fields<'a>,
    pub shared: &'a Shared,
    pub tensors: Tensors<'a>,
    /// What the names of the tensors of layers begin with.
    pub prefix: &'a str,
    /// The numbers of the layers that have the block.
    pub layers: &'a [usize],
}

/// The tensors that lie beside a configuration, which say what some of them fail to.
#[derive(Copy, Clone)]
pub(crate) struct Tensors<'a> {
    /// The shape of the one with this name.
    pub shape: &'a dyn Fn(&str) -> Option<Vec<usize>>,
    /// Their values, where some matter.
    pub values: Option<&'a Gguf>,
}

impl Tensors<'_> {
    /// None at all.
    pub const NONE: Tensors<'static> = Tensors { shape: &|_| None, values: None };

    /// The values of a small tensor of a GGUF file.
    pub fn floats(&self, name: &str) -> Option<Vec<f32>> {
        let tensor = self.values?.find(name).filter(|t| t.elem_count() <= WIDTH)?;
        let mut values = vec![0f32; tensor.elem_count()];
        tensor.format.decode(&tensor.bytes, &mut values).ok()?;
        Some(values)
    }

    /// How many rows a matrix of a GGUF file has before those at its end that are zero; at least 1.
    pub fn rows(&self, name: &str) -> Option<usize> {
        let tensor = self.values?.find(name)?;
        let [rows, cols] = tensor.shape[..] else { return None };
        let bytes = tensor.format.bytes_for(cols).filter(|&bytes| bytes > 0 && cols <= WIDTH)?;
        let mut values = vec![0f32; cols];
        let mut zero = |row: &[u8]| tensor.format.decode(row, &mut values).is_ok() && values.iter().all(|&x| x == 0.0);
        let empty = tensor.bytes.rchunks_exact(bytes).take_while(|row| zero(row)).count();
        Some(rows.saturating_sub(empty).max(1))
    }
}

impl Reader<'_> {
    /// The shape of a tensor of a layer.
    pub fn shape(&self, layer: usize, tensor: &str) -> Option<Vec<usize>> {
        (self.tensors.shape)(&format!("{}.{layer}.{tensor}", self.prefix))
    }

    /// Whether there is this tensor in the first of the layers.
    pub fn present(&self, tensor: &str) -> bool {
        self.layers.first().is_some_and(|&layer| self.shape(layer, tensor).is_some())
    }

    /// Whether there are biases; `tensor` is one of them.
    pub fn bias(&self, bias: Bias, tensor: &str) -> bool {
        match bias {
            Bias::Never => false,
            Bias::Always => true,
            Bias::Optional(_) | Bias::Usually(_) if self.f.is_gguf() => self.present(tensor),
            Bias::Optional(names) => self.f.flag(&Key::new(&[], names), false),
            Bias::Usually(names) => self.f.flag(&Key::new(&[], names), true),
        }
    }

    /// One value for each of the layers, from one for each of the model's.
    pub fn pick<T: Copy>(&self, all: &[T]) -> Vec<T> {
        self.layers.iter().map(|&layer| all[layer]).collect()
    }

    /// [`Fields::per_layer`] for these layers, from 1 on. Layers with other blocks may have 0.
    pub fn counts(&self, key: &Key, default: Option<usize>, most: usize) -> Vec<usize> {
        if !self.f.is_list(key) {
            return vec![self.f.size(key, default, most); self.layers.len()];
        }
        let counts = self.pick(&self.f.per_layer(key, default, 0, most, self.shared.layers));
        if counts.contains(&0) {
            self.f.problem(self.f.name(key), format!("0 is not a whole number from 1 to {most}"));
        }
        counts.into_iter().map(|count| count.max(1)).collect()
    }
}
