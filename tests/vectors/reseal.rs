//! Makes every sum of a bent stream right again, so that what is bent is reached. Shared by tests and fuzz targets.

/// Walks the frames as their length fields have them, and sets numbers (if asked), sums and links. A stream id is made
/// to follow from the ids beside it. What lies behind the last whole frame stays as it is.
pub fn reseal(stream: &mut [u8], renumber: bool) {
    let Some((preamble, mut rest)) = stream.split_at_mut_checked(24) else { return };
    let crc = crc32fast::hash(&preamble[..20]);
    preamble[20..].copy_from_slice(&crc.to_le_bytes());
    let mut chain = blake3::Hasher::new();
    chain.update(preamble);
    for number in 0_u64.. {
        let Some((head, tail)) = rest.split_at_mut_checked(32) else { return };
        let kind = u16::from_le_bytes([head[0], head[1]]);
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let Some((payload, tail)) = tail.split_at_mut_checked(len as usize) else { return };
        if renumber {
            head[8..16].copy_from_slice(&number.to_le_bytes());
        }
        match (kind, payload.len()) {
            (0x0001, 96..) => {
                let parts = [&b"siphon-stream"[..], &payload[16..32], &payload[32..48], &payload[48..64], &payload[..8]];
                let mut id = blake3::Hasher::new();
                parts.iter().for_each(|part| {
                    id.update(&(part.len() as u32).to_le_bytes()).update(part);
                });
                let id = id.finalize();
                payload[64..80].copy_from_slice(&id.as_bytes()[..16]);
            }
            (0x0003, 56) => payload[24..].copy_from_slice(chain.finalize().as_bytes()),
            (0x0004, 88) => {
                chain.update(&payload[..56]);
                payload[56..].copy_from_slice(chain.finalize().as_bytes());
            }
            _ => {}
        }
        head[24..28].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
        let crc = crc32fast::hash(&head[..28]);
        head[28..].copy_from_slice(&crc.to_le_bytes());
        if kind == 0x0010 {
            let offset = u64::from_le_bytes(head[16..24].try_into().unwrap_or_default());
            chain.update(head);
            leaves(offset, payload, |leaf| _ = chain.update(leaf));
        } else if kind != 0x0003 {
            chain.update(head).update(payload);
        }
        if kind == 0x0001 || kind == 0x0003 {
            let link = chain.finalize();
            chain.reset().update(link.as_bytes());
        }
        rest = tail;
    }
}

/// What stands for DATA in the chain, made from the page and not from the code under test.
fn leaves(offset: u64, payload: &[u8], mut each: impl FnMut(&[u8; 32])) {
    let first = payload.len().min(65536 - (offset % 65536) as usize);
    let (head, rest) = payload.split_at(first);
    for piece in [head].into_iter().chain(rest.chunks(65536)).filter(|piece| !piece.is_empty()) {
        let zero = piece.iter().all(|byte| *byte == 0);
        each(&if zero { [0; 32] } else { *blake3::hash(piece).as_bytes() });
    }
}
