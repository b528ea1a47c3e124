//! Signatures, made and checked, and the values that adapters compute for each request.

use crate::{
    code::Code,
    config::{
        Instance,
        plan::{Computed, Sign, Verify},
        raw::adapter::{Algorithm, KeyEncoding, Output},
    },
    event::hex,
    template::{Scope, Texts},
    verdict::Failure,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use ring::hmac;
use secrecy::ExposeSecret as _;
use std::time::Duration;

/// A secret setting's text.
///
/// # Errors
/// It is not given, or cannot be had. The message waits: settings can be mended.
pub fn secret(instance: &Instance, name: &str) -> Result<secrecy::SecretString, Failure> {
    let Some(reference) = instance.secrets.get(name) else {
        let what = format!("the secret setting `{name}` of {} is not given", instance.name);
        return Err(Failure::not_done(Code::SecretUnavailable, what));
    };
    reference.resolve().map_err(|no| Failure::not_done(no.code, no.what))
}

fn key(
    instance: &Instance,
    name: &str,
    encoding: KeyEncoding,
    algorithm: Algorithm,
) -> Result<hmac::Key, Failure> {
    let text = secret(instance, name)?;
    let text = text.expose_secret();
    let bytes = match encoding {
        KeyEncoding::Text => Some(text.as_bytes().to_vec()),
        KeyEncoding::Base64 => STANDARD.decode(text.trim()).ok(),
        KeyEncoding::Hex => unhex(text.trim()),
    };
    let Some(bytes) = bytes else {
        let what =
            format!("the secret setting `{name}` of {} is not written as the adapter says", instance.name);
        return Err(Failure::not_done(Code::SecretUnavailable, what));
    };
    Ok(hmac::Key::new(hmac_of(algorithm), &bytes))
}

fn hmac_of(algorithm: Algorithm) -> hmac::Algorithm {
    match algorithm {
        Algorithm::HmacSha256 => hmac::HMAC_SHA256,
        Algorithm::HmacSha512 => hmac::HMAC_SHA512,
        Algorithm::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits?;
    digits.len().is_multiple_of(2).then(|| {
        digits
            .chunks_exact(2)
            .filter_map(|pair| match pair {
                [high, low] => Some(high * 16 + low),
                _ => None,
            })
            .collect()
    })
}

/// Signs bytes as an adapter says.
///
/// # Errors
/// The key cannot be had.
pub fn sign(instance: &Instance, sign: &Sign, bytes: &[u8]) -> Result<String, Failure> {
    let key = key(instance, &sign.key, sign.key_encoding, sign.algorithm)?;
    let signature = hmac::sign(&key, bytes);
    Ok(match sign.output {
        Output::Hex => hex(signature.as_ref()),
        Output::Base64 => STANDARD.encode(signature.as_ref()),
    })
}

/// The adapter's values for one request. One whose template lacks a name in this scope is left out: what needs it says so.
///
/// # Errors
/// A key cannot be had.
pub fn values(instance: &Instance, scope: &Scope<'_>) -> Result<Texts, Failure> {
    let mut values = Texts::new();
    for (name, computed) in &instance.adapter.values {
        let template = match computed {
            Computed::Text(template) | Computed::Signature(_, template) => template,
        };
        let Ok(text) = template.render(&scope.with_values(&values)) else { continue };
        let text = match computed {
            Computed::Text(_) => text,
            Computed::Signature(how, _) => sign(instance, how, text.as_bytes())?,
        };
        values.insert(name.clone(), text);
    }
    Ok(values)
}

/// Why a request is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotBelieved {
    /// The code.
    pub code: Code,
    /// What is wrong, for our log; the caller is told only that it was refused.
    pub what: String,
}

/// Checks the signature of a request in constant time, on the raw bytes, before anything is parsed.
///
/// # Errors
/// It is missing, wrong or stale.
pub fn verify(
    instance: &Instance,
    verify: &Verify,
    header: impl Fn(&str) -> Option<String>,
    body: &[u8],
    now: Timestamp,
) -> Result<(), NotBelieved> {
    let no = |code, what: String| Err(NotBelieved { code, what });
    let Some(given) = header(&verify.header) else {
        return no(Code::SignatureMissing, format!("the header {} is missing", verify.header));
    };
    let given = given.trim();
    let Some(given) = given.strip_prefix(verify.prefix.as_str()) else {
        return no(Code::SignatureWrong, format!("the signature does not begin with `{}`", verify.prefix));
    };
    let given = match verify.output {
        Output::Hex => unhex(given),
        Output::Base64 => STANDARD.decode(given).ok(),
    };
    let Some(given) = given else {
        return no(Code::SignatureWrong, "the signature is not written as it must be".to_owned());
    };
    let mut signed = Vec::new();
    if let Some((name, separator, window)) = &verify.timestamp {
        let Some(moment) = header(name) else {
            return no(Code::RequestStale, format!("the header {name} is missing"));
        };
        fresh(&moment, *window, now)?;
        signed.extend_from_slice(moment.trim().as_bytes());
        signed.extend_from_slice(separator.as_bytes());
    }
    signed.extend_from_slice(body);
    let mut tried = 0;
    for name in verify.keys.iter().filter(|name| instance.secrets.contains_key(*name)) {
        match key(instance, name, verify.key_encoding, verify.algorithm) {
            Ok(key) => {
                tried += 1;
                if hmac::verify(&key, &signed, &given).is_ok() {
                    return Ok(());
                }
            }
            Err(failure) => {
                tracing::error!(code = %failure.code, "a signing key cannot be used: {}", failure.what)
            }
        }
    }
    match tried {
        0 => no(Code::SecretUnavailable, "no key is there to check the signature with".to_owned()),
        _ => no(Code::SignatureWrong, "the signature fits none of the keys".to_owned()),
    }
}

fn fresh(moment: &str, window: Duration, now: Timestamp) -> Result<(), NotBelieved> {
    let moment = moment.trim();
    let parsed = moment.parse::<i64>().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let Some(parsed) = parsed.or_else(|| moment.parse().ok()) else {
        return Err(NotBelieved {
            code: Code::RequestStale,
            what: "the moment of the request cannot be read".to_owned(),
        });
    };
    match now.duration_since(parsed).unsigned_abs() <= window {
        true => Ok(()),
        false => Err(NotBelieved {
            code: Code::RequestStale,
            what: "the request is too old, or from the future".to_owned(),
        }),
    }
}
