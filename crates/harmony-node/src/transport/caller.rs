//! Who opens a connection, for whoever stands between two members: a proxy that passes some callers on and others not.

use std::io::{self, Read};

use harmony_types::NodeId;
use prost::Message as _;

use crate::transport::frame;
use crate::transport::handshake::{HELLO_BYTES_MAX, invalid, read_frame_blocking};
use crate::transport::wire::{Hello, MAGIC};

/// A connection's first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The member that says it calls. Nothing proves it here: the member called checks.
    pub from: NodeId,
    /// The frame's bytes, to be passed on before anything else.
    pub bytes: Vec<u8>,
}

/// Reads the first frame of a peer's connection, on a thread that may block.
///
/// # Errors
/// The connection; [`io::ErrorKind::InvalidData`] when it does not begin as a peer's does.
pub fn read_caller(stream: &mut impl Read) -> io::Result<Caller> {
    let payload = read_frame_blocking(stream, HELLO_BYTES_MAX)?;
    let hello = Hello::decode(payload)?;
    let from = NodeId::new(hello.from).filter(|_| hello.magic == MAGIC);
    let from = from.ok_or_else(|| invalid("the connection does not begin as a peer's"))?;
    let mut bytes = bytes::BytesMut::new();
    frame::encode(&hello, HELLO_BYTES_MAX, &mut bytes).map_err(invalid)?;
    Ok(Caller { from, bytes: bytes.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(magic: u64, from: u64) -> Vec<u8> {
        let hello = Hello { magic, from, ..Hello::default() };
        let mut bytes = bytes::BytesMut::new();
        frame::encode(&hello, HELLO_BYTES_MAX, &mut bytes).unwrap();
        bytes.to_vec()
    }

    #[test]
    fn the_caller_is_read_and_its_bytes_kept() {
        let bytes = hello(MAGIC, 7);
        let caller = read_caller(&mut &bytes[..]).unwrap();
        assert_eq!(caller, Caller { from: NodeId::new(7).unwrap(), bytes });
    }

    #[test]
    fn what_is_no_peer_is_refused() {
        assert!(read_caller(&mut &hello(MAGIC, 0)[..]).is_err());
        assert!(read_caller(&mut &hello(MAGIC + 1, 7)[..]).is_err());
        assert!(read_caller(&mut &b"GET / HTTP/1.1\r\n\r\n"[..]).is_err());
        assert!(read_caller(&mut &[][..]).is_err());
    }
}
