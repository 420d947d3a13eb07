//! The common name in a certificate's subject. The certificate was verified before, so its shape is known; what does not
//! have it has no common name.

use rustls::pki_types::CertificateDer;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const VERSION: u8 = 0xa0;
/// 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
/// UTF8String, PrintableString, T61String, IA5String: whose bytes can be compared as they are.
const TEXTS: [u8; 4] = [0x0c, 0x13, 0x14, 0x16];

/// The last common name of the subject, as Go's parser takes it; `None` when there is none.
pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (certificate, _) = open(certificate, SEQUENCE)?;
    let (mut fields, _) = open(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = next(fields)?.2;
    }
    // Serial number, algorithm, issuer, validity.
    for _ in 0..4 {
        fields = next(fields)?.2;
    }
    let (mut names, _) = open(fields, SEQUENCE)?;
    let mut found = None;
    while !names.is_empty() {
        let (mut set, rest) = open(names, SET)?;
        names = rest;
        while !set.is_empty() {
            let (attribute, rest) = open(set, SEQUENCE)?;
            set = rest;
            let (kind, value) = open(attribute, OBJECT_IDENTIFIER)?;
            let (tag, text, _) = next(value)?;
            if kind == COMMON_NAME && TEXTS.contains(&tag) {
                found = std::str::from_utf8(text).ok().map(str::to_owned);
            }
        }
    }
    found
}

/// Content of the element that comes first, if it is of this kind, and what follows it.
fn open(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = next(bytes)?;
    (found == tag).then_some((content, rest))
}

/// Kind and content of the element that comes first, and what follows it.
fn next(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, first, rest @ ..] = bytes else { return None };
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, &str)]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["alternative".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn the_subjects_common_name_is_found() {
        let long = "n".repeat(300);
        for name in ["node-1", "", "ünicode", &long] {
            let found = of(&certificate(&[(DnType::OrganizationName, "other"), (DnType::CommonName, name)]));
            assert_eq!(found.as_deref(), Some(name));
        }
        assert_eq!(of(&certificate(&[(DnType::OrganizationName, "other")])), None);
        assert_eq!(of(&certificate(&[])), None);
    }

    #[test]
    fn what_is_cut_or_changed_has_another_name_or_none_and_nothing_panics() {
        let whole = certificate(&[(DnType::CommonName, "node-1")]);
        for cut in 0..whole.len() {
            assert_eq!(of(&CertificateDer::from(whole[..cut].to_vec())), None, "cut at {cut}");
        }
        for place in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut changed = whole.to_vec();
                changed[place] ^= flip;
                let _ = of(&CertificateDer::from(changed));
            }
        }
    }
}
