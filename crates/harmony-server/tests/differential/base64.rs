//! Base64, the form that bytes have in JSON.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    let mut text = String::new();
    for piece in bytes.as_ref().chunks(3) {
        let word = (0..3).fold(0, |word, at| word << 8 | u32::from(piece.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let six = word >> (18 - 6 * at) & 63;
            text.push(if at <= piece.len() { char::from(ALPHABET[six as usize]) } else { '=' });
        }
    }
    text
}

#[test]
fn bytes_have_the_form_of_the_standard() {
    for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
        assert_eq!(encode(bytes), text);
    }
    assert_eq!(encode([0xfb, 0xff]), "+/8=");
}
