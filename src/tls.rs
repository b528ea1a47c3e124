//! TLS settings of our own connections and listeners: ring, the machine's authorities and those named beside them.

#[cfg(feature = "postgres")]
pub mod postgres;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// A certificate's file and its key.
pub type Identity = (PathBuf, SecretString);

/// For connecting.
///
/// # Errors
/// What is wrong with which file.
pub fn client(ca: Option<&Path>, identity: Option<Identity>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if let Some(ca) = ca {
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|error| format!("{}: {error}", ca.display()))?;
        }
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some((path, key)) => builder
            .with_client_auth_cert(certificates(&path)?, private_key(&key)?)
            .map_err(|error| format!("{}: {error}", path.display())),
    }
}

/// For listening; with `ca`, only clients with a certificate of that authority are let in.
///
/// # Errors
/// What is wrong with which file.
pub fn server(identity: Identity, ca: Option<&Path>) -> Result<ServerConfig, String> {
    let (path, key) = identity;
    let builder = match ca {
        None => ServerConfig::builder().with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca)? {
                roots.add(certificate).map_err(|error| format!("{}: {error}", ca.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
            ServerConfig::builder()
                .with_client_cert_verifier(verifier.map_err(|error| format!("{}: {error}", ca.display()))?)
        }
    };
    builder
        .with_single_cert(certificates(&path)?, private_key(&key)?)
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| format!("{}: {error}", path.display()))?
        .collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("{} holds no certificate", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn private_key(key: &SecretString) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes())
        .map_err(|error| format!("the certificate's key: {error}"))
}

/// Makes ring the one TLS provider of the process. First thing in `main` and in every test.
pub fn install() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
