//! One file: header, metadata, tensor table, and the checks that make its offsets safe to follow.

use super::{Metadata, TensorInfo};
use crate::cursor::Cursor;
use crate::error::Origin;
use crate::{Bytes, Error, Result};
use imaginal_numeric::{FORMATS, Format};

/// More tensors than this are refused: the largest models have some hundred thousand, and every one costs memory.
const MOST_TENSORS: u64 = 1 << 18;
/// Longest name of a tensor. ggml's own limit is 64; some writers go beyond it.
const LONGEST_NAME: usize = 1024;
/// Most dimensions, as in ggml.
const MOST_DIMS: u32 = 4;
/// Alignment of the data where `general.alignment` is absent.
const ALIGNMENT: u32 = 32;
/// Largest alignment: beyond this a header could point anywhere.
const MOST_ALIGNMENT: u32 = 1 << 20;
/// Bytes of the smallest entry of the tensor table: name length, dimensions, one dimension, type, offset.
const LEAST_ENTRY: u64 = 8 + 4 + 4 + 8;

pub(super) struct Part {
    pub(super) version: u32,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<TensorInfo>,
}

/// A row of the tensor table, before its data is looked at.
struct Entry {
    name: String,
    shape: Vec<usize>,
    format: Format,
    offset: u64,
    bytes: usize,
}

impl Part {
    pub(super) fn read(origin: Origin, source: Bytes) -> Result<Part> {
        let mut cursor = Cursor::new(&origin, &source);
        let version = header(&mut cursor)?;
        let tensor_count = cursor.u64("tensor count")?;
        let key_count = cursor.u64("metadata count")?;
        if tensor_count > MOST_TENSORS {
            return Err(origin.too_large("tensor count", tensor_count, MOST_TENSORS));
        }
        let metadata = Metadata::read(&mut cursor, &source, key_count)?;
        let alignment = alignment(&metadata)?;
        let need = tensor_count * LEAST_ENTRY;
        if need > cursor.left() as u64 {
            return Err(origin.truncated(format_args!("table of {tensor_count} tensors"), need, cursor.left() as u64));
        }
        let entries = (0..tensor_count).map(|i| entry(&mut cursor, i, alignment)).collect::<Result<Vec<_>>>()?;
        let tensors = place(&origin, &source, cursor.pos(), alignment, entries)?;
        Ok(Part { version, metadata, tensors })
    }
}

fn header(cursor: &mut Cursor<'_, '_>) -> Result<u32> {
    let origin = cursor.origin;
    let found = cursor.rest().get(..4).unwrap_or(cursor.rest());
    if found != b"GGUF" {
        let found = if found.is_empty() { "nothing".to_owned() } else { format!("\"{}\"", found.escape_ascii()) };
        return Err(Error::Magic { path: origin.path().to_owned(), expected: "GGUF", found });
    }
    cursor.take(4, "magic")?;
    let version = cursor.u32("version")?;
    match version {
        2 | 3 => Ok(version),
        // The magic is four bytes and reads alike in both orders; the version tells.
        _ if (1..=3).contains(&version.swap_bytes()) => Err(Error::BigEndian { path: origin.path().to_owned() }),
        _ => Err(Error::Version { path: origin.path().to_owned(), found: version }),
    }
}

fn alignment(metadata: &Metadata) -> Result<u64> {
    let key = "general.alignment";
    let alignment = metadata.get_as::<u32>(key)?.unwrap_or(ALIGNMENT);
    if !alignment.is_power_of_two() || alignment > MOST_ALIGNMENT {
        let problem = format!("{alignment} is not a power of two up to {MOST_ALIGNMENT}");
        return Err(metadata.invalid(key, problem));
    }
    Ok(alignment.into())
}

fn entry(cursor: &mut Cursor<'_, '_>, i: u64, alignment: u64) -> Result<Entry> {
    let origin = cursor.origin;
    let name = cursor.string(format_args!("name of tensor {i}"))?;
    if name.is_empty() || name.len() > LONGEST_NAME {
        let problem = format!("a name has 1 to {LONGEST_NAME} bytes, this one {}", name.len());
        return Err(origin.malformed(format_args!("name of tensor {i}"), problem));
    }
    let field = |what: &str| format!("tensor {name}: {what}");
    let dims = cursor.u32(field("number of dimensions"))?;
    if dims > MOST_DIMS {
        return Err(origin.too_large(field("number of dimensions"), dims.into(), MOST_DIMS.into()));
    }
    let mut shape = Vec::new();
    for d in 0..dims {
        let dim = cursor.u64(field("dimensions"))?;
        if dim == 0 {
            return Err(origin.malformed(field("dimensions"), format!("dimension {d} is zero")));
        }
        // Half the address space, so that no sum of what follows overflows.
        let most = (isize::MAX as u64) / 2;
        shape.push(
            usize::try_from(dim)
                .ok()
                .filter(|_| dim <= most)
                .ok_or_else(|| origin.too_large(field(&format!("dimension {d}")), dim, most))?,
        );
    }
    let number = cursor.u32(field("type"))?;
    let format = Format::from_ggml(number).ok_or_else(|| {
        let known: Vec<String> =
            FORMATS.iter().filter_map(|f| f.ggml_type.map(|n| format!("{n} ({})", f.name))).collect();
        origin.unsupported(field("type"), number, known.join(", "))
    })?;
    let offset = cursor.u64(field("offset"))?;
    if !offset.is_multiple_of(alignment) {
        let problem = format!("{offset} is not a multiple of the alignment, {alignment}");
        return Err(origin.malformed(field("offset"), problem));
    }
    let row = shape.first().copied().unwrap_or(1);
    if !row.is_multiple_of(format.block_len()) {
        let problem = format!("rows of {row} are not whole blocks of {format} ({} each)", format.block_len());
        return Err(origin.malformed(field("dimensions"), problem));
    }
    let bytes = shape
        .iter()
        .try_fold(1usize, |n, d| n.checked_mul(*d))
        .and_then(|n| format.bytes_for(n))
        .filter(|bytes| *bytes <= isize::MAX as usize / 2)
        .ok_or_else(|| origin.malformed(field("dimensions"), format!("{shape:?} of {format} overflow the memory")))?;
    shape.reverse();
    Ok(Entry { name: name.to_owned(), shape, format, offset, bytes })
}

/// Gives every tensor its bytes, once none reaches out of the file or into another.
fn place(
    origin: &Origin,
    source: &Bytes,
    table_end: usize,
    alignment: u64,
    entries: Vec<Entry>,
) -> Result<Vec<TensorInfo>> {
    let start = (table_end as u64).next_multiple_of(alignment);
    let available = (source.len() as u64).saturating_sub(start);
    for e in &entries {
        if e.offset.checked_add(e.bytes as u64).is_none_or(|end| end > available) {
            let (need, have) = (e.bytes as u64, available.saturating_sub(e.offset));
            return Err(origin.truncated(format_args!("tensor {}: data at offset {}", e.name, e.offset), need, have));
        }
    }
    let mut order: Vec<&Entry> = entries.iter().collect();
    order.sort_unstable_by_key(|e| e.offset);
    for pair in order.windows(2) {
        if let [a, b] = pair
            && a.offset + a.bytes as u64 > b.offset
        {
            let problem = format!("its data overlaps that of tensor {}", a.name);
            return Err(origin.malformed(format_args!("tensor {}: offset", b.name), problem));
        }
    }
    let place = |e: Entry| {
        // Within the file, as checked above, so that the conversions hold.
        let at = (start + e.offset) as usize;
        let bytes = source.slice(at..at + e.bytes);
        let bytes = bytes.ok_or_else(|| origin.truncated(format_args!("tensor {}", e.name), e.bytes as u64, 0))?;
        Ok(TensorInfo { name: e.name, shape: e.shape, format: e.format, bytes })
    };
    entries.into_iter().map(place).collect()
}
