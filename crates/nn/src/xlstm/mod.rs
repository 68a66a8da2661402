//! The two memories of xLSTM (Beck et al. 2024): a matrix per head, and cells that mix within a head.

mod mlstm;
mod slstm;

pub use mlstm::{Mlstm, MlstmConfig};
pub use slstm::{Slstm, SlstmConfig};

use imaginal_tensor::{Error, Result};

/// Width of each of `heads` heads.
fn head_dim(op: &'static str, width: usize, heads: usize) -> Result<usize> {
    match heads > 0 && width.is_multiple_of(heads) {
        true => Ok(width / heads),
        false => Err(Error::argument(op, format!("a width of {width} does not divide into {heads} heads"))),
    }
}
