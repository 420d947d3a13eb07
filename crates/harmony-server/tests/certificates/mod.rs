//! An authority and what it signs, as PEM files in a directory.
#![allow(dead_code, reason = "every test uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};

/// An authority; its certificate is the file `NAME.ca`.
pub(crate) struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// One certificate.
pub(crate) struct Wanted<'a> {
    /// Name of the files: `NAME.crt` and `NAME.key`.
    pub(crate) file: &'a str,
    pub(crate) common_name: &'a str,
    pub(crate) serial: u64,
    pub(crate) is_expired: bool,
}

impl Authority {
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        fs::write(dir.join(format!("{name}.ca")), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir: dir.to_owned(), issuer: Issuer::new(params, key) }
    }

    /// Writes `NAME.crt` and `NAME.key`, for 127.0.0.1 and with this common name.
    pub(crate) fn issue(&self, name: &str) {
        self.issue_as(&Wanted { file: name, common_name: name, serial: 1, is_expired: false });
    }

    pub(crate) fn issue_as(&self, wanted: &Wanted<'_>) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, wanted.common_name);
        params.serial_number = Some(SerialNumber::from(wanted.serial));
        if wanted.is_expired {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.dir.join(format!("{}.crt", wanted.file)), certificate.pem()).unwrap();
        fs::write(self.dir.join(format!("{}.key", wanted.file)), key.serialize_pem()).unwrap();
    }

    /// Writes the list of revoked certificates as `crl`.
    pub(crate) fn revoke(&self, serials: &[u64]) {
        let day = |number| rcgen::date_time_ymd(2024, 1, number);
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: day(1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: day(1),
            next_update: day(2),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        fs::write(self.dir.join("crl"), list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
    }
}
