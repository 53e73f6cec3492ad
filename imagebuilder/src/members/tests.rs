//! Streams as others write them, and as nobody should.

use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;
use crate::digest::Digest;

/// A header of POSIX's kind, which the fields can be changed of.
struct Raw([u8; BLOCK]);

impl Raw {
    fn new(name: &str, kind: u8, size: usize) -> Self {
        let mut raw = Self([0; BLOCK]);
        raw.set(0, name.as_bytes());
        raw.set(100, b"0000644\0");
        raw.set(108, b"0000001\0");
        raw.set(116, b"0000002\0");
        raw.set(124, format!("{size:011o}\0").as_bytes());
        raw.set(136, b"00000000017\0");
        raw.set(156, &[kind]);
        raw.set(257, b"ustar\x0000");
        raw
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.set(at, bytes);
        self
    }

    /// The header and its data, in whole blocks.
    fn data(mut self, data: &[u8]) -> Vec<u8> {
        self.set(148, b"        ");
        let sum: u32 = self.0.iter().map(|it| u32::from(*it)).sum();
        self.set(148, format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = [&self.0, data].concat();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }
}

fn file(name: &str, data: &str) -> Vec<u8> {
    Raw::new(name, b'0', data.len()).data(data.as_bytes())
}

fn link(name: &str, kind: u8, target: &str) -> Vec<u8> {
    Raw::new(name, kind, 0).with(157, target.as_bytes()).data(b"")
}

fn extended(kind: u8, data: &[u8]) -> Vec<u8> {
    Raw::new("ext", kind, data.len()).data(data)
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in records {
        let rest = format!(" {key}={value}\n");
        let mut length = rest.len() + 1;
        while length != rest.len() + length.to_string().len() {
            length += 1;
        }
        bytes.extend(format!("{length}{rest}").as_bytes());
    }
    extended(b'x', &bytes)
}

const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

fn read(stream: &[u8], limit: u64) -> Result<String, MembersError> {
    let mut text = String::new();
    for_each::<MembersError>(&mut { stream }, limit, &mut |member, content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        let Member { path, kind, meta, size, number } = member;
        let Meta { mode, uid, gid, mtime, xattrs } = meta;
        write!(text, "{number} {path} {kind:?} {mode:o} {uid}:{gid} {mtime} {size}").unwrap();
        for (name, value) in &xattrs {
            let text_of = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
            write!(text, " {}={:?}", text_of(name), text_of(value)).unwrap();
        }
        assert_eq!(size, bytes.len() as u64);
        match bytes.len() {
            0 => writeln!(text).unwrap(),
            1..40 => writeln!(text, " {:?}", String::from_utf8_lossy(&bytes)).unwrap(),
            _ => writeln!(text, " {}", &Digest::of(&bytes).hex()[..8]).unwrap(),
        }
        Ok(())
    })?;
    Ok(text)
}

fn show(stream: &[u8]) -> String {
    read(stream, 1 << 30).unwrap_or_else(|err| {
        let mut text = err.to_string();
        if let MembersError::Tar(source) = &err {
            write!(text, ": {source}").unwrap();
        }
        text + "\n"
    })
}

#[track_caller]
fn check(parts: &[Vec<u8>], want: Expect) {
    want.assert_eq(&show(&[parts.concat(), END.to_vec()].concat()));
}

#[test]
fn members_of_all_kinds_are_read() {
    check(
        &[
            Raw::new("./d/", b'5', 0).with(100, b"0001755\0").data(b""),
            file("./d/f", "hello"),
            Raw::new("old/", 0, 0).data(b""),
            Raw::new("contiguous", b'7', 1).data(b"x"),
            link("l", b'2', "/d/../f"),
            link("h", b'1', "./d/f"),
            Raw::new("c", b'3', 0).with(329, b"0000005\0").with(337, b"0000001\0").data(b""),
            Raw::new("b", b'4', 0).with(329, b"\x80\0\0\0\0\0\x01\x00").data(b""),
            Raw::new("p", b'6', 0).data(b""),
            Raw::new("name", b'0', 0).with(345, b"long/way").data(b""),
            Raw::new("blank", b'0', 0).with(108, b"        ").with(136, &[0; 12]).data(b""),
        ],
        expect![[r#"
            1 d Folder 1755 1:2 15 0
            2 d/f File 644 1:2 15 5 "hello"
            3 old Folder 644 1:2 15 0
            4 contiguous File 644 1:2 15 1 "x"
            5 l Symlink([47, 100, 47, 46, 46, 47, 102]) 644 1:2 15 0
            6 h Hardlink(`d/f`) 644 1:2 15 0
            7 c CharDevice(Device { major: 5, minor: 1 }) 644 1:2 15 0
            8 b BlockDevice(Device { major: 256, minor: 0 }) 644 1:2 15 0
            9 p Fifo 644 1:2 15 0
            10 long/way/name File 644 1:2 15 0
            11 blank File 644 0:2 0 0
        "#]],
    );
}

#[test]
fn extended_headers_tell_of_the_next_member() {
    let long = "n".repeat(150);
    check(
        &[
            pax(&[("path", &long), ("mtime", "-1.5"), ("uid", "4000000000"), ("gid", "7")]),
            file("short", "1"),
            pax(&[
                ("SCHILY.xattr.user.a", "b\nc=d"),
                ("SCHILY.xattr.user.e", ""),
                ("mtime", "9.99"),
            ]),
            file("x", ""),
            pax(&[("linkpath", "over/there"), ("path", "")]),
            link("l", b'2', "here"),
            [extended(b'L', format!("{long}L\0").as_bytes()), extended(b'K', b"to\0rest")].concat(),
            link("l", b'2', "here"),
            // Of two, the last counts, and GNU's name wins.
            [pax(&[("uid", "5"), ("gid", "5")]), pax(&[("gid", "6"), ("path", "pax")])].concat(),
            [extended(b'L', b"gnu"), file("f", "")].concat(),
            // Of the whole archive: nothing.
            [extended(b'g', b"12 uid=1234\n"), file("after", "")].concat(),
            pax(&[("SCHILY.devmajor", "300"), ("SCHILY.devminor", "70000")]),
            link("c", b'3', ""),
            Raw::new("early", b'0', 0).with(136, &[0xff; 12]).data(b""),
            Raw::new("large", b'0', 0).with(108, b"\x80\0\0\0\0\x30\0\0").data(b""),
        ],
        expect![[r#"
            1 nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn File 644 4000000000:7 -2 1 "1"
            2 x File 644 1:2 9 0 user.a="b\nc=d" user.e=""
            3 l Symlink([111, 118, 101, 114, 47, 116, 104, 101, 114, 101]) 644 1:2 15 0
            4 nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnL Symlink([116, 111]) 644 1:2 15 0
            5 gnu File 644 1:6 15 0
            6 after File 644 1:2 15 0
            7 c CharDevice(Device { major: 300, minor: 70000 }) 644 1:2 15 0
            8 early File 644 1:2 -1 0
            9 large File 644 3145728:2 15 0
        "#]],
    );
}

#[test]
fn files_with_holes_are_read_whole() {
    let gnu = |map: &[(u64, u64)], extended: bool, real: u64, stored: usize| {
        let mut raw = Raw::new("gnu", b'S', stored).with(257, b"ustar  \0");
        for (number, (offset, length)) in map.iter().enumerate() {
            raw.set(386 + 24 * number, format!("{offset:011o}\0{length:011o}\0").as_bytes());
        }
        raw.set(482, &[u8::from(extended)]);
        raw.with(483, format!("{real:011o}\0").as_bytes())
    };
    let mut more = [0; BLOCK];
    more[..24].copy_from_slice(b"00000000012\x0000000000002\0");
    check(
        &[
            gnu(&[(2, 3)], false, 8, 3).data(b"abc"),
            gnu(&[(0, 1), (2, 1), (4, 1), (6, 1)], true, 12, 6)
                .data(&[&more[..], b"abcdef"].concat()),
            pax(&[
                ("GNU.sparse.size", "6"),
                ("GNU.sparse.numblocks", "2"),
                ("GNU.sparse.offset", "0"),
                ("GNU.sparse.numbytes", "1"),
                ("GNU.sparse.offset", "4"),
                ("GNU.sparse.numbytes", "2"),
            ]),
            file("pax-0.0", "xyz"),
            pax(&[
                ("GNU.sparse.size", "5"),
                ("GNU.sparse.numblocks", "1"),
                ("GNU.sparse.map", "3,2"),
                ("GNU.sparse.name", "pax-0.1"),
            ]),
            file("GNUSparseFile.0/pax-0.1", "xy"),
            pax(&[
                ("GNU.sparse.major", "1"),
                ("GNU.sparse.minor", "0"),
                ("GNU.sparse.name", "pax-1.0"),
                ("GNU.sparse.realsize", "9"),
            ]),
            Raw::new("x", b'0', BLOCK + 2).data(&{
                let mut data = b"1\n4\n2\n".to_vec();
                data.resize(BLOCK, 0);
                [&data[..], b"xy"].concat()
            }),
            gnu(&[(100, 0)], false, 100, 0).data(b""),
            file("after", "a"),
        ],
        expect![[r#"
            1 gnu File 644 1:2 15 8 "\0\0abc\0\0\0"
            2 gnu File 644 1:2 15 12 "a\0b\0c\0d\0\0\0ef"
            3 pax-0.0 File 644 1:2 15 6 "x\0\0\0yz"
            4 pax-0.1 File 644 1:2 15 5 "\0\0\0xy"
            5 pax-1.0 File 644 1:2 15 9 "\0\0\0\0xy\0\0\0"
            6 gnu File 644 1:2 15 100 cd00e292
            7 after File 644 1:2 15 1 "a"
        "#]],
    );
    for (name, stream) in [
        ("backwards", gnu(&[(4, 1), (2, 1)], false, 8, 2).data(b"ab")),
        ("beyond the end", gnu(&[(4, 8)], false, 8, 8).data(b"abcdefgh")),
        ("less than is said", gnu(&[(0, 2)], false, 8, 3).data(b"abc")),
        ("more than is said", gnu(&[(0, 4)], false, 8, 3).data(b"abc")),
        ("too much to add", gnu(&[(u64::MAX >> 31, u64::MAX >> 31)], false, 8, 3).data(b"abc")),
        ("holes alone", gnu(&[], false, 8 << 30, 0).data(b"")),
        ("another kind", [pax(&[("GNU.sparse.major", "2")]), file("x", "")].concat()),
        ("half a pair", [pax(&[("GNU.sparse.map", "1")]), file("x", "")].concat()),
        (
            "no map",
            [pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")]), file("x", "")].concat(),
        ),
    ] {
        assert!(read(&stream, 1 << 30).is_err(), "{name}: {}", show(&stream));
    }
}

#[test]
fn whiteouts_are_what_they_mean() {
    check(
        &[
            file("a/.wh.x", ""),
            file(".wh.y", ""),
            file("a/.wh..wh..opq", ""),
            file(".wh..wh.aufs", ""),
            file(".wh..wh.plnk/1.2", ""),
            file("a.wh.b", ""),
        ],
        expect![[r#"
            1 a/x Removed 644 1:2 15 0
            2 y Removed 644 1:2 15 0
            3 a Opaque 644 1:2 15 0
            6 a.wh.b File 644 1:2 15 0
        "#]],
    );
    for name in [".wh.", "a/.wh..", "a/.wh...", ".wh.x/y", "a/.wh.x/y/z"] {
        let result = read(&file(name, ""), 1 << 30);
        assert!(
            matches!(result, Err(MembersError::Name(_) | MembersError::Unsupported(_))),
            "{name}: {result:?}"
        );
    }
}

#[test]
fn what_lies_about_itself_is_refused() {
    let long = || [extended(b'L', &[b'a'; 5000]), file("x", "")].concat();
    let negative = Raw::new("x", b'0', 0).with(124, &[0xff; 12]).data(b"");
    let huge = Raw::new("x", b'0', 0).with(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    let name_of_4_gb = Raw::new("x", b'L', 0).with(124, b"\x80\0\0\0\0\0\0\x01\0\0\0\0").data(b"");
    for (stream, want) in [
        (file("../x", ""), "`../x` leads outside of the root"),
        (file("a/../../x", ""), "leads outside of the root"),
        (link("x", b'1', "../../etc/shadow"), "leads outside of the root"),
        ([pax(&[("path", "a/\0b")]), file("x", "")].concat(), "has a zero byte"),
        (long(), "a path has 5000 bytes"),
        (name_of_4_gb, "more than 1 MiB of headers"),
        (negative, "negative"),
        (Raw::new("x", b'0', 0).with(124, b"-0000000001\0").data(b""), "not a number"),
        (huge.data(b""), TOO_LARGE),
        (Raw::new("x", b'0', 0).with(124, b"\x80\xff\xff\xff").data(b""), "too large"),
        (Raw::new("x", b'0', 8 << 30).data(b""), TOO_LARGE),
        ([pax(&[("size", "99999999999999")]), file("x", "")].concat(), TOO_LARGE),
        ([pax(&[("size", "-1")]), file("x", "")].concat(), "not a number"),
        ([pax(&[("size", "1e3")]), file("x", "")].concat(), "not a number"),
        ([pax(&[("size", "5")]), file("x", "")].concat(), "ends in the middle"),
        ([pax(&[("uid", "99999999999")]), file("x", "")].concat(), "no such number"),
        (extended(b'x', b"9 path=a\n"), ""),
        (extended(b'x', b"99 path=a\n"), "malformed"),
        (extended(b'x', b"0 path=a\n"), "malformed"),
        (extended(b'x', b"8 =value\n"), "malformed"),
        (extended(b'x', b"99999999999999999999 path=a\n"), "malformed"),
        (Raw::new("x", b'Z', 0).data(b""), "a member of type 'Z'"),
        (link("./", b'2', "/etc"), "a root that is not a folder"),
        (link("x", b'2', &"a".repeat(100)), ""),
        ([pax(&[("linkpath", &"a/".repeat(3000))]), link("x", b'2', "")].concat(), "4096 bytes"),
        (file("x", "data")[..515].to_vec(), "ends in the middle"),
        (file("x", "data")[..511].to_vec(), "ends in the middle"),
        (b"not a tar archive".repeat(100), "checksum"),
        ([vec![0; BLOCK], file("x", "")].concat(), "an empty block"),
    ] {
        let got = show(&stream);
        let is_right = if want.is_empty() { !got.contains("it ") } else { got.contains(want) };
        assert!(is_right, "{got:?} in place of {want:?}");
    }
}

#[test]
fn an_archive_ends_where_it_ends() {
    let one = file("x", "1");
    let want = "1 x File 644 1:2 15 1 \"1\"\n";
    for (name, end) in [
        ("nothing", vec![]),
        ("one block", vec![0; BLOCK]),
        ("two blocks", END.to_vec()),
        ("garbage", [&END[..], b"garbage"].concat()),
        ("another archive", [&END[..], &file("y", "2")].concat()),
    ] {
        assert_eq!(show(&[one.clone(), end].concat()), want, "{name}");
    }
    assert_eq!(show(b""), "");
    // What fills the last block may be missing, and no byte of the content.
    for length in [BLOCK + 1, BLOCK + 2, one.len() - 1] {
        assert_eq!(show(&one[..length]), want, "{length} bytes");
        assert!(read(&one[..length], length as u64).is_ok(), "{length} bytes");
    }
    let got = show(&one[..BLOCK]);
    assert!(got.contains("ends in the middle of a member"), "{got}");
    // What follows counts as part of the layer.
    let long = [&one[..], &END, &[7; 5000]].concat();
    assert!(matches!(read(&long, 4096), Err(MembersError::Limit(_))));
    assert!(read(&long, long.len() as u64).is_ok());
}

/// Only files have data, whatever the header says: so it is for Go's reader.
#[test]
fn folders_and_links_have_no_data() {
    check(
        &[
            Raw::new("d", b'5', 1024).data(b""),
            Raw::new("h", b'1', 1024).with(157, b"x").data(b""),
            [pax(&[("size", "512")]), link("l", b'2', "x")].concat(),
            file("x", "1"),
        ],
        expect![[r#"
            1 d Folder 644 1:2 15 0
            2 h Hardlink(`x`) 644 1:2 15 0
            3 l Symlink([120]) 644 1:2 15 0
            4 x File 644 1:2 15 1 "1"
        "#]],
    );
}

#[test]
fn a_link_with_a_zero_byte_is_refused() {
    for kind in [b'1', b'2'] {
        let stream = [pax(&[("linkpath", "a\0b")]), link("l", kind, "a"), END.to_vec()].concat();
        let err = read(&stream, 1 << 20).unwrap_err();
        assert!(matches!(err, MembersError::Name(PathError::Zero(_))), "{err}");
    }
}

#[test]
fn counts_are_bounded() {
    /// A stream of the same bytes again and again.
    struct Again(Vec<u8>, usize);
    impl Read for Again {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = (&self.0[self.1..]).read(buffer)?;
            self.1 = (self.1 + count) % self.0.len();
            Ok(count)
        }
    }
    let read = |bytes: Vec<u8>| {
        let mut stream = Again(bytes, 0);
        let (left, number) = (u64::MAX, MOST_MEMBERS - 1000);
        let mut members = Members { stream: &mut stream, left, holes: left, number, headers: 0 };
        loop {
            match members.next() {
                Ok(Some((_, data))) => members.skip(&data).unwrap(),
                Ok(None) => panic!("it ends"),
                Err(err) => return err.to_string(),
            }
        }
    };
    assert_eq!(read(file("x", "")), "it has more than 1,000,000 members");
    assert_eq!(read(pax(&[])), "it has a member with more than 1 MiB of headers");
    let large = [extended(b'K', &vec![b'a'; 1_000_000]), file("x", "")].concat();
    assert_eq!(read(large), "it has more than 256 MiB of extended headers");
}
