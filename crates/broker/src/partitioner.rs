//! Which partition a key belongs to: Kafka's default, so that every client puts a key where Farol does.
//!
//! `toPositive(murmur2(key)) % partitions`, with the seed and the variant of murmur2 that the Java client uses
//! (`org.apache.kafka.common.utils.Utils.murmur2`).

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;
const R: u32 = 24;

/// The 32-bit murmur2 hash of `data`, as Kafka's clients compute it.
pub fn murmur2(data: &[u8]) -> u32 {
    // Kafka's hash takes the length as a 32-bit integer; keys are bounded far below that.
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (byte, shift) in tail.iter().zip([0, 8, 16]) {
            hash ^= u32::from(*byte) << shift;
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of `key` among `partitions` (0 if there are none).
pub fn partition_for_key(key: &[u8], partitions: i32) -> i32 {
    let positive = murmur2(key) & 0x7fff_ffff;
    match u32::try_from(partitions) {
        Ok(partitions) if partitions > 0 => i32::try_from(positive % partitions).unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_java_client() {
        // The vectors of Kafka's own UtilsTest.
        let vectors: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in vectors {
            assert_eq!(murmur2(key), hash.cast_unsigned(), "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn partitions_are_in_range_for_every_key_and_count() {
        for n in 0..2000u32 {
            let key = format!("sensor-{n}");
            for partitions in [1, 2, 3, 7, i32::MAX] {
                assert!((0..partitions).contains(&partition_for_key(key.as_bytes(), partitions)));
            }
        }
        assert_eq!(partition_for_key(b"x", 0), 0);
    }
}
