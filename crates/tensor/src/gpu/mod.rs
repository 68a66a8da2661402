//! Devices besides the CPU, reached through CubeCL: one kernel source for Vulkan, Metal, DirectX and WebGPU.
//!
//! This module is the only place that talks to CubeCL's runtime. Operations see four things of it: [`GpuDevice`], the
//! memory [`GpuStorage`], the description of strided views [`Info`], and [`GpuDevice::run`], which launches a kernel.
//! Kernels are `#[cube]` functions in the `gpu.rs` of their operation; one that CubeCL cannot express may be WGSL text,
//! launched by the same `run` (see the tests). Launches return at once; a kernel that fails is reported by the read that needs its result.
//!
//! Every element takes a word of 32 bits on the device: WebGPU's shading language has no storage for narrower ones.
//! `f32`, `i32` and `u32` are held as they are, `u8` and `bool` widened to `u32`; other types are refused.

mod storage;
#[cfg(test)]
mod tests;
mod transfer;

use std::sync::{Arc, Mutex};

use cubecl::prelude::*;
use cubecl::wgpu::{AutoGraphicsApi, RuntimeOptions, WgpuDevice, try_init_setup};

use crate::{Error, Layout, Result};

pub(crate) use storage::{GpuStorage, word};
pub(crate) use transfer::{float_storage, missing, move_to, read_async, storage};

/// Threads per workgroup of kernels that have no reason to choose otherwise.
pub(crate) const UNITS: u32 = 64;
/// Workgroups per dimension that every device takes.
const MAX_CUBES: usize = 65535;

/// A graphics processor, or a software rasterizer that acts as one. Cheap to clone; clones are the same device.
#[derive(Clone)]
pub struct GpuDevice(Arc<Inner>);

struct Inner {
    name: String,
    client: Client,
}

impl GpuDevice {
    /// The adapter that the system prefers, opened once per process. The environment variable
    /// `CUBECL_WGPU_DEFAULT_DEVICE` chooses another: `DiscreteGpu(0)`, `IntegratedGpu(0)`, `Cpu`.
    ///
    /// # Errors
    /// There is no adapter, or it refuses a device.
    pub fn open() -> Result<Self> {
        static OPEN: Mutex<Option<GpuDevice>> = Mutex::new(None);
        let mut open = OPEN.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(device) = &*open {
            return Ok(device.clone());
        }
        let selector = WgpuDevice::default();
        let setup = RuntimeOptions::try_default()
            .and_then(|options| try_init_setup::<AutoGraphicsApi>(&selector, options))
            .map_err(|e| refused(format!("{e}; install a Vulkan driver, or use --device cpu")))?;
        let info = setup.adapter.get_info();
        let client = cubecl::Device::Wgpu(selector).client();
        let device = GpuDevice(Arc::new(Inner { name: format!("{}, {:?}", info.name, info.backend), client }));
        *open = Some(device.clone());
        Ok(device)
    }

    /// The adapter's name and the interface it is reached through.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Launches a kernel with one thread for each of `threads` results (and some more, which must do nothing).
    /// `launch` hands client, grid and workgroup to the kernel's own `launch` function. Does nothing for no threads.
    pub(crate) fn run(
        &self,
        op: &'static str,
        threads: usize,
        launch: impl FnOnce(&Client, CubeCount, CubeDim),
    ) -> Result<()> {
        self.run_groups(op, threads.div_ceil(UNITS as usize), CubeDim::new_1d(UNITS), launch)
    }

    /// Launches a kernel with `groups` workgroups (and some more, which must do nothing) of `dim` threads.
    pub(crate) fn run_groups(
        &self,
        op: &'static str,
        groups: usize,
        dim: CubeDim,
        launch: impl FnOnce(&Client, CubeCount, CubeDim),
    ) -> Result<()> {
        if groups == 0 {
            return Ok(());
        }
        // Kernels count threads in 32 bits.
        if groups.checked_mul(dim.num_elems() as usize).is_none_or(|n| n > u32::MAX as usize) {
            return Err(Error::argument(op, format!("{groups} workgroups are more than a device kernel can count")));
        }
        let x = groups.min(MAX_CUBES);
        let count = CubeCount::Static(x as u32, groups.div_ceil(x) as u32, 1);
        launch(&self.0.client, count, dim);
        Ok(())
    }
}

fn refused(what: impl std::fmt::Display) -> Error {
    // Drivers' messages come with line breaks and backtraces; an error is one line.
    let text = what.to_string();
    let said = |l: &&str| !l.is_empty() && !["Caused by:", "Asked at:", "No backtrace available"].contains(l);
    let lines: Vec<&str> = text.lines().map(str::trim).take_while(|l| *l != "Backtrace:").filter(said).collect();
    Error::Device { device: "gpu".into(), what: lines.join(": ") }
}

impl PartialEq for GpuDevice {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
impl Eq for GpuDevice {}

impl std::fmt::Debug for GpuDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GpuDevice({})", self.name())
    }
}

/// The numbers that a kernel needs beside its buffers: layouts of strided views, sizes, constants. One small buffer
/// per launch, because their count varies with the rank.
#[derive(Default)]
pub(crate) struct Info(Vec<u32>);

impl Info {
    pub fn new() -> Self {
        Info::default()
    }

    /// Appends a number.
    pub fn number(mut self, n: usize) -> Self {
        // Storages have fewer than 2^32 elements (checked where they are made), so that no size or stride in use
        // reaches the limit; that of an unused dimension does not matter.
        self.0.push(n.min(u32::MAX as usize) as u32);
        self
    }

    /// Appends the bits of a float.
    pub fn float(mut self, x: f32) -> Self {
        self.0.push(x.to_bits());
        self
    }

    /// Appends a layout as [`place`] reads it: rank, sizes, strides, offset. Dense runs of dimensions become one.
    pub fn layout(mut self, layout: &Layout) -> Self {
        let mut dims: Vec<(usize, usize)> = Vec::new();
        for (&d, &s) in layout.dims().iter().zip(layout.strides()) {
            match dims.last_mut() {
                _ if d == 1 => {}
                Some((n, stride)) if *stride == s * d => {
                    *n *= d;
                    *stride = s;
                }
                _ => dims.push((d, s)),
            }
        }
        self = self.number(dims.len());
        for &(d, _) in &dims {
            self = self.number(d);
        }
        for &(_, s) in &dims {
            self = self.number(s);
        }
        self.number(layout.offset())
    }

    /// Puts the numbers on the device.
    pub fn upload(&self, device: &GpuDevice) -> Result<GpuStorage> {
        GpuStorage::from_words(device, &self.0)
    }
}

/// Where element number `linear` (row-major) of the view that [`Info::layout`] wrote at `info[at..]` lies.
#[cube]
pub(crate) fn place(info: &[u32], at: u32, linear: u32) -> u32 {
    let rank = info[at as usize];
    let mut rest = linear;
    let mut offset = info[(at + 1 + 2 * rank) as usize];
    let mut d = rank;
    while d > 0 {
        let size = info[(at + d) as usize];
        offset += (rest % size) * info[(at + rank + d) as usize];
        rest /= size;
        d -= 1;
    }
    offset
}

/// Where the entry after a layout at `info[at..]` begins.
#[cube]
pub(crate) fn after(info: &[u32], at: u32) -> u32 {
    at + 2 + 2 * info[at as usize]
}
