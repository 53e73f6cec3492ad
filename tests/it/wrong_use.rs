//! What people ask for and cannot mean, or cannot have: it is refused with exit status 2 before
//! anything is done, and they are told what to do instead.

use std::fs;

use crate::{build, sandbox_with_context};

#[test]
fn a_copy_replaces_no_file() {
    let sandbox = sandbox_with_context();
    build(&sandbox, "shop:1");
    sandbox.write("notes.tar", "mine");
    for target in ["docker-archive:notes.tar", "docker-archive:notes.tar:shop:2", "oci:notes.tar"] {
        let refused = sandbox.rbuild(["image", "copy", "store:shop:1", target]).go();
        refused.fails(2, &["`notes.tar` is there already", "remove it"]);
    }
    assert_eq!(fs::read_to_string(sandbox.src().join("notes.tar")).unwrap(), "mine");
    for target in ["docker-archive:-", "oci:-"] {
        let refused = sandbox.rbuild(["image", "copy", "store:shop:1", target]).go();
        refused.fails(2, &[target, "standard output", "image save"]);
    }
    // A layout takes another image, and what is empty was made to be written.
    sandbox.write("empty.tar", "");
    for target in ["oci:layout:1", "oci:layout:2", "docker-archive:empty.tar"] {
        sandbox.rbuild(["image", "copy", "store:shop:1", target]).ok();
    }
}
