//! Places are read as people write them. Copies themselves are tested with registries, in `tests`.

use super::*;

#[test]
fn places_are_read_as_they_are_shown() {
    for (text, shown) in [
        ("shop", "docker://shop"),
        ("localhost:5000/x", "docker://localhost:5000/x"),
        ("docker://localhost:5000/x:1", "docker://localhost:5000/x:1"),
        ("oci:layout", "oci:layout"),
        ("oci:/a/layout:shop:1", "oci:/a/layout:shop:1"),
        ("docker-archive:x.tar:shop:1", "docker-archive:x.tar:shop:1"),
        ("store:shop:1", "store:shop:1"),
    ] {
        let place: Place = text.parse().unwrap();
        assert_eq!(place.to_string(), shown, "for `{text}`");
    }
    for text in [
        "",
        "oci:",
        "oci::x",
        "oci:x:",
        "docker-archive:",
        "store:",
        "dir:x",
        "oci-archive:x.tar",
        "docker-daemon:x",
        "docker://",
        "https://x/y",
        "containers-storage:x",
    ] {
        assert!(text.parse::<Place>().is_err(), "for `{text}`");
    }
}
