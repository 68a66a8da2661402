use crate::{Error, Result};

/// Where a tensor's elements live and its operations run. A run-time value: the same model code runs on any.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Device {
    /// Main memory and the kernels of `imaginal-kernels`.
    #[default]
    Cpu,
    /// A graphics processor, with the `gpu` feature.
    #[cfg(feature = "gpu")]
    Gpu(crate::GpuDevice),
}

impl Device {
    /// The device of this name: `cpu`, or `gpu` for the adapter that the system prefers.
    ///
    /// # Errors
    /// There is no such name or no adapter, or this build has no GPU support.
    pub fn from_name(name: &str) -> Result<Device> {
        match name {
            "cpu" => Ok(Device::Cpu),
            #[cfg(feature = "gpu")]
            "gpu" => Ok(Device::Gpu(crate::GpuDevice::open()?)),
            #[cfg(not(feature = "gpu"))]
            "gpu" => {
                let what = "this build has no GPU support; build with --features gpu, or use --device cpu".into();
                Err(Error::Device { device: "gpu".into(), what })
            }
            other => Err(Error::argument("device", format!("no device is called {other:?}; there are cpu and gpu"))),
        }
    }

    /// The fused operations that have no kernel of their own on this device: they are computed there in their reference
    /// form, composed of primitives. An operation that can be computed in neither way is an error that names it.
    pub fn composed_operations(&self) -> &'static [&'static str] {
        match self {
            Device::Cpu => &[],
            #[cfg(feature = "gpu")]
            Device::Gpu(_) => &[
                "attention",
                "causal_conv1d",
                "cross_entropy",
                "cumsum",
                "linear",
                "linear_attention",
                "log_softmax",
                "mlstm",
                "rms_norm",
                "rope",
                // All but the recurrence itself, which is a kernel.
                "selective_scan",
                "slstm",
                "softmax",
                "swiglu",
                "trapezoid_scan",
                "wkv",
            ],
        }
    }

    /// Whether this is the CPU.
    pub fn is_cpu(&self) -> bool {
        matches!(self, Device::Cpu)
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            #[cfg(feature = "gpu")]
            Device::Gpu(_) => f.write_str("gpu"),
        }
    }
}
