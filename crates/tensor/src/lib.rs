//! The tensor core: eager [`Tensor`]s whose device and element type are values, strided views without copies,
//! a pool that reuses buffers, and a tape for gradients.
//!
//! Every operation is a folder under `ops/` with its interface, its kernels per device, its gradient and its tests;
//! every operation returns [`Result`] and none panics on what a caller hands it.
//!
//! ```
//! use imaginal_tensor::{Device, Tensor};
//! # fn main() -> imaginal_tensor::Result<()> {
//! let w = Tensor::from_vec(vec![1.0f32, 2.0, 3.0], 3, &Device::Cpu)?.requires_grad();
//! let loss = w.mul(&w)?.sum_all()?;
//! let grads = loss.backward()?;
//! assert_eq!(grads.get(&w).unwrap().to_vec::<f32>()?, [2.0, 4.0, 6.0]);
//! # Ok(())
//! # }
//! ```

mod autograd;
mod buffer;
mod device;
mod dtype;
mod error;
#[cfg(feature = "gpu")]
mod gpu;
mod layout;
mod ops;
mod packed;
mod storage;
mod tensor;

pub use autograd::{Grads, checkpoint, is_grad_enabled, no_grad};
pub use buffer::{pool_stats, pool_trim};
pub use device::Device;
pub use dtype::{DType, Element};
pub use error::{Error, Result};
#[cfg(feature = "gpu")]
pub use gpu::GpuDevice;
pub use layout::{Layout, Shape};
pub use ops::adamw::AdamW;
pub use ops::attention::{AttentionOpts, KvCache, LONGEST_CHUNK};
pub use ops::linear_attention::{HeadOrder, LinearAttentionInputs};
pub use ops::mlstm::MlstmInputs;
pub use ops::random::Philox;
pub use ops::rope::RopeStyle;
pub use ops::selective_scan::ScanInputs;
pub use ops::trapezoid_scan::TrapezoidInputs;
pub use ops::wkv::WkvInputs;
pub use packed::Packed;
pub use storage::Bytes;
pub use tensor::{Tensor, TensorId};
