//! Listening for HTTP: accepts connections, with TLS if asked, within limits of time and number, and hands them to an
//! axum router. Used by the receiver and by the admin pages; knows neither.

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

/// How long a client may take for the TLS handshake, and for sending a request's head.
const SLOWEST: Duration = Duration::from_secs(10);
/// How many connections are open at once.
const MOST: usize = 1_024;

/// Serves until `stop`; then takes no more connections and lets those under way finish their request.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let room = Arc::new(Semaphore::new(MOST));
    let acceptor = tls.map(TlsAcceptor::from);
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let (stream, from) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, mostly: it passes.
                    warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let (router, stop, acceptor) = (router.clone(), stop.clone(), acceptor.clone());
        tasks.spawn(async move {
            let _permit = permit;
            match acceptor {
                None => connection(stream, router, stop).await,
                Some(acceptor) => {
                    match timeout(SLOWEST, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => connection(stream, router, stop).await,
                        // Somebody who speaks TLS, and with whom it cannot be agreed on: a certificate, mostly.
                        Ok(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                            warn!(%from, "a connection was refused during the TLS handshake: {error}");
                        }
                        // Somebody who went away or said nothing.
                        Ok(Err(_)) | Err(_) => {}
                    }
                }
            }
        });
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    stop: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(SLOWEST);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // A client that goes away in the middle is its own affair.
    let _ = ended;
}
