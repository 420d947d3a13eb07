//! Connections over a network that went away without a word.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// How long the other side may leave sent bytes unacknowledged. Left to itself, TCP tries for a quarter of an hour, in
/// ever longer intervals: a link that comes back would stay unused for as long as it was away.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);

/// Silence after which the other side is asked for a sign of life, and the time between two questions.
const SILENCE: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_secs(2);
const ASKS: u32 = 3;

/// Makes a connection end soon after its network did.
///
/// # Errors
/// The system refuses an option.
pub(super) fn watch(socket: &SockRef<'_>) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(SILENCE).with_interval(ASK_AGAIN).with_retries(ASKS);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn the_system_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = SockRef::from(&stream);
        watch(&socket).unwrap();
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), SILENCE);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
    }
}
