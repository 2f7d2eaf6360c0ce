//! How the records of a batch are compressed, byte for byte as Kafka's own clients do it.

use std::io::{Read, Write};

use super::BatchError;

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Gzip (RFC 1952).
    Gzip,
    /// Snappy in the block framing of the Java client ("xerial"); raw snappy is read too.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// Zstandard.
    Zstd,
}

const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Uncompressed bytes of one block of the xerial framing, the Java client's default.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
const ZSTD_LEVEL: i32 = 3;

impl Compression {
    /// Every variant, for tables and tests.
    pub const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    pub(crate) fn from_code(code: i16) -> Result<Self, BatchError> {
        match code {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            code => Err(BatchError::UnknownCompression { code }),
        }
    }

    pub(crate) fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Appends `input`, compressed, to `out`.
    pub(crate) fn compress(self, input: &[u8], out: &mut Vec<u8>) -> Result<(), BatchError> {
        let failed = |source: std::io::Error| BatchError::Compress { compression: self, source };
        match self {
            Self::None => out.extend_from_slice(input),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
                encoder.write_all(input).map_err(failed)?;
                encoder.finish().map_err(failed)?;
            }
            Self::Snappy => compress_xerial(input, out).map_err(|e| failed(std::io::Error::other(e)))?,
            Self::Lz4 => {
                // Block independence and 64 KiB blocks are what the Java client writes and every client reads.
                let info = lz4_flex::frame::FrameInfo::new()
                    .block_size(lz4_flex::frame::BlockSize::Max64KB)
                    .block_mode(lz4_flex::frame::BlockMode::Independent);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, out);
                encoder.write_all(input).map_err(failed)?;
                encoder.finish().map_err(|e| failed(std::io::Error::other(e)))?;
            }
            Self::Zstd => {
                let compressed = zstd::bulk::compress(input, ZSTD_LEVEL).map_err(failed)?;
                out.extend_from_slice(&compressed);
            }
        }
        Ok(())
    }

    /// The decompressed `input`, refusing more than `limit` bytes of it.
    pub(crate) fn decompress(self, input: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
        match self {
            Self::None if input.len() > limit => Err(BatchError::TooLarge { bytes: input.len(), limit }),
            Self::None => Ok(input.to_vec()),
            Self::Gzip => self.read_bounded(flate2::read::MultiGzDecoder::new(input), limit),
            Self::Snappy => self.decompress_snappy(input, limit),
            Self::Lz4 => self.read_bounded(lz4_flex::frame::FrameDecoder::new(input), limit),
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(input)
                    .map_err(|source| BatchError::Decompress { compression: self, source })?;
                self.read_bounded(decoder, limit)
            }
        }
    }

    fn read_bounded(self, reader: impl Read, limit: usize) -> Result<Vec<u8>, BatchError> {
        let one_past = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let mut out = Vec::new();
        reader
            .take(one_past)
            .read_to_end(&mut out)
            .map_err(|source| BatchError::Decompress { compression: self, source })?;
        if out.len() > limit {
            return Err(BatchError::TooLarge { bytes: out.len(), limit });
        }
        Ok(out)
    }

    fn decompress_snappy(self, input: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
        let mut out = Vec::new();
        let Some(framed) = input.strip_prefix(&XERIAL_MAGIC) else {
            self.snappy_block(input, limit, &mut out)?;
            return Ok(out);
        };
        // Eight bytes of version numbers, which the Java client ignores as well.
        let mut rest = framed.get(8..).ok_or_else(|| self.damaged("framing header is cut"))?;
        while !rest.is_empty() {
            let (length, after) =
                rest.split_first_chunk::<4>().ok_or_else(|| self.damaged("block length is cut"))?;
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            let block = after.get(..length).ok_or_else(|| self.damaged("block is cut"))?;
            self.snappy_block(block, limit, &mut out)?;
            rest = after.get(length..).unwrap_or_default();
        }
        Ok(out)
    }

    fn snappy_block(self, block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
        let failed = |e: snap::Error| BatchError::Decompress { compression: self, source: e.into() };
        let bytes = snap::raw::decompress_len(block).map_err(failed)?;
        let start = out.len();
        let end = start.saturating_add(bytes);
        if end > limit {
            return Err(BatchError::TooLarge { bytes: end, limit });
        }
        out.resize(end, 0);
        let place = out.get_mut(start..).unwrap_or_default();
        snap::raw::Decoder::new().decompress(block, place).map_err(failed)?;
        Ok(())
    }

    fn damaged(self, what: &'static str) -> BatchError {
        BatchError::Decompress {
            compression: self,
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, what),
        }
    }
}

fn compress_xerial(input: &[u8], out: &mut Vec<u8>) -> Result<(), snap::Error> {
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&1u32.to_be_bytes());
    out.extend_from_slice(&1u32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(XERIAL_BLOCK_BYTES) {
        let compressed = encoder.compress_vec(block)?;
        let length = u32::try_from(compressed.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_compression_gives_back_what_it_was_given() {
        let input: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for compression in Compression::ALL {
            let mut out = Vec::new();
            compression.compress(&input, &mut out).unwrap();
            assert_eq!(compression.decompress(&out, input.len()).unwrap(), input, "{compression:?}");
        }
    }

    #[test]
    fn output_beyond_the_limit_is_refused() {
        let bomb = vec![0u8; 10_000_000];
        for compression in Compression::ALL {
            let mut out = Vec::new();
            compression.compress(&bomb, &mut out).unwrap();
            let refused = compression.decompress(&out, 100_000);
            assert!(matches!(refused, Err(BatchError::TooLarge { .. })), "{compression:?}: {refused:?}");
        }
    }

    #[test]
    fn raw_snappy_without_framing_is_read() {
        let raw = snap::raw::Encoder::new().compress_vec(b"unframed").unwrap();
        assert_eq!(Compression::Snappy.decompress(&raw, 100).unwrap(), b"unframed");
    }
}
