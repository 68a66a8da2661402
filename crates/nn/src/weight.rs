use std::sync::{Arc, RwLock};

use imaginal_numeric::Format;
use imaginal_tensor::{Bytes, DType, Error, Packed, Result, Tensor};

use crate::Param;

/// A matrix of weights, `rows` outputs by `cols` inputs, whose number format is a value.
///
/// A layer asks its weight for a product ([`Weight::linear`]) or for rows ([`Weight::embed`]) and does not know whether
/// that comes from f32 or from packed blocks of a mapped file. Cheap to clone: clones are the same weight, which is how
/// an output head is tied to an embedding.
#[derive(Clone)]
pub struct Weight(Arc<Inner>);

struct Inner {
    rows: usize,
    cols: usize,
    form: RwLock<Form>,
}

/// What the weight is made of. At least one of the two is there; the packed version is the one that is used.
#[derive(Clone)]
struct Form {
    master: Option<Param>,
    packed: Option<Packed>,
}

impl Weight {
    fn new(rows: usize, cols: usize, form: Form) -> Self {
        Weight(Arc::new(Inner { rows, cols, form: RwLock::new(form) }))
    }

    /// A float weight; the tensor becomes its master, without a copy.
    ///
    /// # Errors
    /// The tensor is not an f32 matrix.
    pub fn from_tensor(value: Tensor) -> Result<Self> {
        let &[rows, cols] = value.shape() else {
            return Err(Error::Rank { op: "weight", expected: 2, shape: value.shape().to_vec() });
        };
        if value.dtype() != DType::F32 {
            return Err(Error::DType { op: "weight", got: value.dtype(), expected: "f32".into() });
        }
        Ok(Weight::new(rows, cols, Form { master: Some(Param::new(value)), packed: None }))
    }

    /// A weight that exists in packed form only; no float copy is made.
    pub fn from_packed(packed: Packed) -> Self {
        Weight::new(packed.rows(), packed.cols(), Form { master: None, packed: Some(packed) })
    }

    /// A weight straight from a file's bytes: f32 becomes a float weight over the same bytes, every other format is
    /// used packed.
    ///
    /// # Errors
    /// The bytes are not `rows` × `cols` weights in `format`.
    pub fn from_bytes(format: Format, rows: usize, cols: usize, bytes: Bytes) -> Result<Self> {
        if format == Format::F32 {
            return Weight::from_tensor(Tensor::from_bytes(bytes, [rows, cols], DType::F32)?);
        }
        Ok(Weight::from_packed(Packed::new(format, rows, cols, bytes)?))
    }

    fn form(&self) -> Form {
        self.0.form.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    fn set_form(&self, form: Form) {
        *self.0.form.write().unwrap_or_else(|e| e.into_inner()) = form;
    }

    /// Rows: output features, or entries of an embedding.
    pub fn rows(&self) -> usize {
        self.0.rows
    }

    /// Columns: input features.
    pub fn cols(&self) -> usize {
        self.0.cols
    }

    /// The format in which products are computed.
    pub fn format(&self) -> Format {
        self.form().packed.map_or(Format::F32, |p| p.format())
    }

    /// The f32 master that training changes, if there is one.
    pub fn master(&self) -> Option<Param> {
        self.form().master
    }

    /// The packed version, if there is one.
    pub fn packed(&self) -> Option<Packed> {
        self.form().packed
    }

    /// Whether two handles are the same weight.
    pub fn same(&self, other: &Weight) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// `x[.., cols] · selfᵀ (+ bias[rows])` → `[.., rows]`.
    ///
    /// # Errors
    /// The shapes do not fit, or the device has no kernel for the format.
    pub fn linear(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        match self.form() {
            Form { packed: Some(p), .. } => x.packed_linear(&p, bias),
            Form { master: Some(m), .. } => x.linear(&m.get(), bias),
            Form { .. } => Err(Error::argument("weight", "a weight without values")),
        }
    }

    /// [`Weight::linear`] with several weights. A few tokens are rounded once for all that are packed.
    ///
    /// # Errors
    /// As [`Weight::linear`].
    pub fn linears<const N: usize>(weights: [&Weight; N], x: &Tensor) -> Result<[Tensor; N]> {
        let forms = weights.map(|w| w.form().packed);
        if forms.iter().all(Option::is_some) {
            let mut packed = forms.iter().flatten();
            return x.packed_linears([(); N].map(|()| packed.next().expect("as many as weights")));
        }
        let all: Vec<_> = weights.iter().map(|w| w.linear(x, None)).collect::<Result<_>>()?;
        Ok(all.try_into().unwrap_or_else(|_| unreachable!("as many as weights")))
    }

    /// `silu(x · gateᵀ) · (x · upᵀ)` → `[.., rows]`, for two weights of one shape.
    ///
    /// # Errors
    /// As [`Weight::linear`].
    pub fn swiglu(gate: &Weight, up: &Weight, x: &Tensor) -> Result<Tensor> {
        match (gate.form().packed, up.form().packed) {
            (Some(gate), Some(up)) => x.packed_swiglu(&gate, &up),
            _ => gate.linear(x, None)?.swiglu(&up.linear(x, None)?),
        }
    }

    /// [`Weight::linear`] by groups: this weight is as many matrices of equal shape, one after another, as there are `counts`,
    /// and the first `counts[0]` rows of `x[m, cols]` belong to the first, the next `counts[1]` to the second, and so on.
    /// The result is `[m, rows / counts.len()]`.
    ///
    /// # Errors
    /// The counts do not add up to `m`, the rows are no such number of matrices, or as [`Weight::linear`].
    pub fn grouped_linear(&self, x: &Tensor, counts: &[usize]) -> Result<Tensor> {
        match self.form() {
            Form { packed: Some(p), .. } => x.packed_grouped_linear(&p, counts),
            Form { master: Some(m), .. } => x.grouped_linear(&m.get(), counts),
            Form { .. } => Err(Error::argument("weight", "a weight without values")),
        }
    }

    /// [`Weight::swiglu`] by groups, which are those of [`Weight::grouped_linear`].
    ///
    /// # Errors
    /// As [`Weight::grouped_linear`].
    pub fn grouped_swiglu(gate: &Weight, up: &Weight, x: &Tensor, counts: &[usize]) -> Result<Tensor> {
        match (gate.form().packed, up.form().packed) {
            (Some(gate), Some(up)) => x.packed_grouped_swiglu(&gate, &up, counts),
            _ => gate.grouped_linear(x, counts)?.swiglu(&up.grouped_linear(x, counts)?),
        }
    }

    /// The rows that `ids` (u32, any shape) name → `[.., cols]`, f32.
    ///
    /// # Errors
    /// An id is not below [`Weight::rows`].
    pub fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let shape: Vec<usize> = ids.shape().iter().copied().chain([self.cols()]).collect();
        let flat = ids.reshape(ids.elem_count())?;
        let rows = match self.form() {
            Form { packed: Some(p), .. } => Tensor::packed_rows(&p, &flat)?,
            Form { master: Some(m), .. } => m.get().index_select(0, &flat)?,
            Form { .. } => return Err(Error::argument("weight", "a weight without values")),
        };
        rows.reshape(shape)
    }

    /// All weights as an f32 matrix.
    ///
    /// # Errors
    /// The packed bytes cannot be decoded.
    pub fn to_f32(&self) -> Result<Tensor> {
        match self.form() {
            Form { master: Some(m), .. } => Ok(m.get().detach()),
            Form { packed: Some(p), .. } => Tensor::from_packed(&p),
            Form { .. } => Err(Error::argument("weight", "a weight without values")),
        }
    }

    /// All weights packed in `format`: the packed version itself where it has that format, else encoded from f32.
    ///
    /// # Errors
    /// A row is not a whole number of the format's blocks.
    pub fn to_packed(&self, format: Format) -> Result<Packed> {
        match self.form() {
            // A master may have been trained since it was packed, so that only a weight without one is taken as it is.
            Form { master: None, packed: Some(p) } if p.format() == format => Ok(p),
            _ => {
                let master = self.to_f32()?;
                let values = master.to_vec::<f32>()?;
                let size = format.bytes_for(self.cols()).and_then(|b| b.checked_mul(self.rows())).ok_or_else(|| {
                    Error::argument("pack", format!("rows of {} are no whole blocks of {format}", self.cols()))
                })?;
                let mut bytes = vec![0u8; size];
                format.encode(&values, &mut bytes).map_err(|source| Error::Format { op: "pack", source })?;
                Packed::new(format, self.rows(), self.cols(), Bytes::from_vec(bytes))?.to_device(master.device())
            }
        }
    }

    /// Changes the format in which products are computed. With `keep_master` the f32 master stays beside the packed
    /// version (made from it if there is none yet), so that training and later morphs lose nothing.
    ///
    /// # Errors
    /// A row is not a whole number of the format's blocks.
    pub fn morph(&self, format: Format, keep_master: bool) -> Result<()> {
        if format == Format::F32 {
            let master = self.form().master.map_or_else(|| self.to_f32().map(Param::new), Ok)?;
            self.set_form(Form { master: Some(master), packed: None });
            return Ok(());
        }
        let packed = self.to_packed(format)?;
        let master = match (keep_master, self.form().master) {
            (false, _) => None,
            (true, Some(m)) => Some(m),
            (true, None) => Some(Param::new(self.to_f32()?)),
        };
        self.set_form(Form { master, packed: Some(packed) });
        Ok(())
    }
}

impl std::fmt::Debug for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weight({}×{}, {})", self.rows(), self.cols(), self.format())
    }
}
