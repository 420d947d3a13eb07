use super::*;

#[test]
fn peer_urls_have_one_form() {
    assert_eq!(address_of("http://localhost:2380").unwrap(), "localhost:2380");
    assert_eq!(address_of("http://[::1]:2380/").unwrap(), "[::1]:2380");
    for url in ["localhost:2380", "https://a:1", "http://a", "http://:1", "http://a:99999", "http://a/b:1"] {
        assert!(matches!(address_of(url), Err(TransportError::Url { .. })), "{url}");
    }
}
