//! A certificate of one's own making, for peers that want to be hidden from listeners and know of no authority.

use std::time::Duration;

use harmony_types::Clock as _;
use harmony_wal::SystemClock;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

const HOUR: Duration = Duration::from_secs(3_600);

/// Years behind which dates become hard to write down.
const YEARS_MAX: u32 = 1_000;

/// Makes a key and a certificate for these hosts, valid from now on.
pub(super) fn generate(
    hosts: &[String],
    valid_years: u32,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), rcgen::Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name.push(DnType::CommonName, "harmony");
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    // An hour back, for clocks that are not quite together.
    let since_1970 = Duration::from_millis(SystemClock::new().unix_ms());
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970.saturating_sub(HOUR);
    params.not_after = params.not_before + HOUR * 24 * 365 * valid_years.clamp(1, YEARS_MAX);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into())))
}
