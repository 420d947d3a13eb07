//! The network thread: one OS thread with its own single-threaded runtime accepts connections and serves HTTP/2 (gRPC)
//! and HTTP/1.1 on the same port. One thread makes large batches: all requests that arrived are worked on before the
//! first answer is written, and each connection writes once.

pub(crate) mod co;
pub(crate) mod entrance;
pub(crate) mod files;
pub(crate) mod grpc;
pub(crate) mod linger;
pub(crate) mod methods;
pub(crate) mod replies;
pub(crate) mod routes;
pub(crate) mod services;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use harmony_node::tls::MaybeTls;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

use co::Co;
use entrance::Entrance;
use linger::Linger;
use routes::Routes;

/// Bytes that one stream may send ahead of what was read: most requests fit whole.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// Bytes that one connection may send ahead of what was read.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// Answer bytes buffered for one stream.
const SEND_BUFFER_BYTES: usize = 1 << 20;

/// How long a connection may take to say what it speaks, and an HTTP/1.1 client to send its head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Rest after a failed accept: most often the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Threads for ranges and hashes that read much.
const BLOCKING_THREADS_MAX: usize = 8;

/// A port, how connections come in there, and what is served.
pub(crate) struct Door {
    pub(crate) socket: StdListener,
    pub(crate) entrance: Entrance,
    pub(crate) routes: Routes,
}

/// What an operator may say of HTTP/2.
#[derive(Clone, Copy)]
pub(crate) struct Http2 {
    /// Requests under way on one connection.
    pub(crate) streams_max: u32,
    /// A connection without a sign of life for so long is asked for one, as etcd does.
    pub(crate) keep_alive_interval: Duration,
    /// How long a connection may take to answer that.
    pub(crate) keep_alive_timeout: Duration,
}

/// What connections share.
#[derive(Clone)]
struct Hall {
    /// Connections that may be open.
    places: Arc<Semaphore>,
    /// TLS handshakes that may be under way.
    handshakes: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
    /// Each connection holds a sender; when the last is gone all connections are closed.
    _open: mpsc::Sender<()>,
}

/// Work that runs on the network thread beside the connections.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The running network thread.
pub(crate) struct Network {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// Starts serving on listeners that are bound already.
    ///
    /// # Errors
    /// The system gives no thread, or no event queue.
    pub(crate) fn start(
        doors: Vec<Door>,
        http2: Http2,
        tasks: Vec<Task>,
        drain: Duration,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("harmony-read")
            .build()?;
        let doors = {
            let _context = runtime.enter();
            let open = |door: Door| Ok((listen(door.socket)?, door.entrance, door.routes));
            doors.into_iter().map(open).collect::<io::Result<Vec<_>>>()?
        };
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new().name("harmony-net".to_owned()).spawn(move || {
            run(&runtime, doors, &builder(http2), tasks, stopped, drain);
            end(runtime);
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Stops accepting, lets requests under way end for as long as the drain time allows, and returns when all
    /// connections are closed.
    pub(crate) fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the network thread panicked");
        }
    }

    /// True when the thread has ended, which it should not by itself.
    pub(crate) fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop();
    }
}

fn listen(listener: StdListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn run(
    runtime: &Runtime,
    doors: Vec<(TcpListener, Entrance, Routes)>,
    builder: &Builder,
    tasks: Vec<Task>,
    mut stopped: watch::Receiver<bool>,
    drain: Duration,
) {
    runtime.block_on(async {
        for task in tasks {
            tokio::spawn(task);
        }
        let (open, mut all_closed) = mpsc::channel::<()>(1);
        let connections_max = files::connections_max();
        let hall = Hall {
            places: Arc::new(Semaphore::new(connections_max)),
            handshakes: Arc::new(Semaphore::new(connections_max.div_ceil(2))),
            stopped: stopped.clone(),
            _open: open,
        };
        for (listener, entrance, routes) in doors {
            tokio::spawn(accept(listener, builder.clone(), entrance, routes, hall.clone()));
        }
        drop(hall);
        told(&mut stopped).await;
        if timeout(drain, all_closed.recv()).await.is_err() {
            tracing::warn!("some requests did not end in time");
        }
    });
}

/// Ends what is left. A range over everything may still be read, for somebody who is not served any more: a runtime that
/// is merely dropped would wait for it.
fn end(runtime: Runtime) {
    runtime.shutdown_background();
}

/// Waits until the thread is told to stop.
async fn told(stopped: &mut watch::Receiver<bool>) {
    // The sender cannot be gone: whoever holds it waits for this thread.
    let _stop = stopped.wait_for(|stop| *stop).await;
}

/// Ends when a connection did not say in time what it speaks. Which HTTP it is, is found out without a limit of time.
async fn silent(heard: &AtomicBool) {
    sleep(HEADER_TIMEOUT).await;
    if heard.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

async fn accept(listener: TcpListener, builder: Builder, entrance: Entrance, routes: Routes, mut hall: Hall) {
    let mut full = false;
    loop {
        let was_full = std::mem::replace(&mut full, hall.places.available_permits() == 0);
        if full && !was_full {
            tracing::warn!("no connection more until one closes: raise the process's limit on open files");
        }
        let accepted = tokio::select! {
            accepted = next(&listener, &hall.places) => accepted,
            () = told(&mut hall.stopped) => return,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                // Without this an answer of two writes waits for the client's delayed acknowledgement.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "connection lost at once");
                    continue;
                }
                // The handshake is a part of the connection's own task: one that stalls is nobody else's concern.
                let (builder, entrance, routes) = (builder.clone(), entrance.clone(), routes.clone());
                let mut hall = hall.clone();
                tokio::spawn(async move {
                    let entered = tokio::select! {
                        entered = entrance.enter(stream, peer, &hall.handshakes) => entered,
                        () = told(&mut hall.stopped) => None,
                    };
                    if let Some((stream, user)) = entered {
                        serve(builder, stream, routes.of_user(user), &mut hall.stopped).await;
                    }
                    drop((place, hall));
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The next connection, once there is a place for it.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

type Builder = auto::Builder<TokioExecutor>;

fn builder(http2: Http2) -> Builder {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(http2.streams_max)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(http2.keep_alive_interval)
        .keep_alive_timeout(http2.keep_alive_timeout)
        .auto_date_header(false);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
}

async fn serve(
    builder: Builder,
    stream: MaybeTls<TcpStream>,
    routes: Routes,
    stopped: &mut watch::Receiver<bool>,
) {
    let stream = Co::new(Linger::new(stream), routes.counters());
    let heard = stream.heard();
    let io = TokioIo::new(stream);
    let mut connection = pin!(builder.serve_connection(io, TowerToHyperService::new(routes)));
    let result = tokio::select! {
        biased;
        result = connection.as_mut() => result,
        () = silent(&heard) => {
            tracing::debug!("connection without a request");
            return;
        }
        () = told(stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // A client that hangs up: nothing to do, and too common to warn of.
        tracing::debug!(%error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_connection_that_says_nothing_is_given_up() {
        let (quiet, heard) = (AtomicBool::new(false), AtomicBool::new(true));
        silent(&quiet).await;
        timeout(100 * HEADER_TIMEOUT, silent(&heard)).await.unwrap_err();
    }

    #[test]
    fn a_long_read_does_not_hold_up_the_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let read = runtime.spawn_blocking(move || released.recv());
        end(runtime);
        // Only now may it end.
        release.send(()).unwrap();
        drop(read);
    }
}
