//! Tests of masking, whole and in streams.

use super::*;

fn redactor(values: &[&str], masking: Masking) -> Redactor {
    Redactor::new(values.iter().map(|it| Secret::new((*it).to_owned())).collect(), masking)
}

/// What comes out of a stream that is cut into `chunks`.
fn streamed<'a>(redactor: &Redactor, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut stream = MaskedOutput::new(redactor);
    let mut shown = Vec::new();
    let longest = redactor.patterns.as_ref().map_or(0, |it| it.longest());
    for chunk in chunks {
        stream.push(chunk, &mut |bytes| shown.extend_from_slice(bytes));
        assert!(stream.held() < longest.max(1), "{} bytes are held", stream.held());
    }
    stream.flush(&mut |bytes| shown.extend_from_slice(bytes));
    assert_eq!(stream.held(), 0);
    shown
}

/// The rule itself, tried at every place: every byte of every text, and one mask for those that
/// overlap.
fn by_the_rule(texts: &[Vec<u8>], text: &[u8]) -> Vec<u8> {
    let mut masked = Vec::new();
    // Up to where a mask that was written goes.
    let mut end = 0;
    for at in 0..text.len() {
        let here = texts.iter().filter(|it| text[at..].starts_with(it)).map(Vec::len).max();
        match here {
            _ if at < end => {}
            None => masked.push(text[at]),
            Some(_) => masked.extend_from_slice(b"***"),
        }
        end = end.max(at + here.unwrap_or_default());
    }
    masked
}

#[track_caller]
fn check(values: &[&str], masking: Masking, text: &str, want: &str) {
    let redactor = redactor(values, masking);
    assert_eq!(redactor.mask(text), want);
    for size in [1, 2, 3, 5, 7] {
        let shown = streamed(&redactor, text.as_bytes().chunks(size));
        assert_eq!(String::from_utf8(shown).unwrap(), want, "in chunks of {size}");
    }
}

#[test]
fn values_are_masked_wherever_they_stand() {
    for (values, text, want) in [
        (&[][..], "nothing", "nothing"),
        (&["s3cr3t"], "", ""),
        (&["s3cr3t"], "s3cr3", "s3cr3"),
        (&["s3cr3t"], "s3cr3t", "***"),
        (&["s3cr3t"], "a s3cr3ts3cr3t, s3cr3s3cr3t", "a ******, s3cr3***"),
        (&["abc"], "abcabc", "abcabc"),
        (&["abcd"], "aabcdd", "a***d"),
        (&["aaaa"], "aaaaaaaaaaa", "***"),
        (&["héé"], "h héé é", "h *** é"),
        (&["a\0bcd"], "xa\0bcd\0", "x***\0"),
        (&["***x", "a***"], "a***x ***x ***", "*** *** ***"),
    ] {
        check(values, Masking::Lines, text, want);
    }
}

#[test]
fn of_values_in_each_other_the_longest_counts_and_of_those_that_overlap_nothing_is_left() {
    for (values, text, want) in [
        (&["abcd", "abcdefgh"][..], "abcdefgh abcdefg abcd", "*** ***efg ***"),
        (&["abcd", "cdef"], "abcdef cdef", "*** ***"),
        (&["abcdefgh", "bcde"], "abcdefgx abcdefgh", "a***fgx ***"),
        (&["abcdefgh", "defghijk"], "abcdefghijk abcdefgijk", "*** abcdefgijk"),
        (&["abcdefgh", "bcde", "fgxy"], "abcdefgxy", "a******"),
        (&["aaaa", "aaaaaaab"], "aaaaaaaaaaac", "***c"),
    ] {
        check(values, Masking::Lines, text, want);
    }
}

#[test]
fn of_a_value_of_many_lines_the_whole_and_each_line_is_masked() {
    let value = "first\r\nab\nthird line\n\n";
    for (masking, text, want) in [
        (Masking::Lines, "first\r\nab\nthird line\n\n.", "***."),
        (Masking::Lines, "first\r\nab\nthird line\n.", "***\n."),
        (Masking::Lines, "first ab third line", "*** ab ***"),
        (Masking::Whole, "first\r\nab\nthird line.", "***."),
        (Masking::Whole, "first ab third line", "first ab third line"),
    ] {
        check(&[value], masking, text, want);
    }
    check(&["one\r\n", "two\n"], Masking::Whole, "one two\n one\r\n", "one *** ***");
}

#[test]
fn lines_are_masked_without_their_indentation_and_blank_ones_not_at_all() {
    let value = "{\n    \"key\": \"hunter\",\n      \n  abc\n}\n";
    for (text, want) in [
        (value, "***"),
        ("x{ \"key\": \"hunter\", abc }", "x{ *** abc }"),
        ("        indented", "        indented"),
    ] {
        check(&[value], Masking::Lines, text, want);
    }
    check(&["  one value "], Masking::Lines, "-one value-  one value -", "-***-***-");
    check(&["  one value "], Masking::Whole, "-one value-  one value -", "-one value-***-");
}

#[test]
fn values_that_overlap_themselves_are_masked_in_time_that_grows_with_the_output() {
    // With a new search after every mask these would be 10^9 steps.
    let (short, long) = ("aaaa".to_owned(), "a".repeat(2_000) + "b");
    let redactor = redactor(&[&short, &long], Masking::Lines);
    let text = "a".repeat(2_000_000) + "c";
    assert_eq!(redactor.mask(&text), "***c");
    for size in [100, 1_999, 200_000] {
        assert_eq!(streamed(&redactor, text.as_bytes().chunks(size)), b"***c");
    }
}

#[test]
fn what_masks_nothing_is_empty_and_passes_all_on() {
    let redactor = redactor(&["", "abc"], Masking::Lines);
    assert!(redactor.is_empty());
    let bytes = b"\xff\0abc";
    let mut stream = MaskedOutput::new(&redactor);
    stream.push(bytes, &mut |it| assert_eq!(it.as_ptr(), bytes.as_ptr()));
    assert!(matches!(redactor.mask_bytes(bytes), Cow::Borrowed(_)));
}

#[test]
fn more_values_are_masked_with_those_before() {
    let first = redactor(&["one1", "a\nline of two"], Masking::Whole);
    let more = first.with(vec![Secret::new("two2\nline".into())]);
    assert_eq!(more.mask("one1 two2 two2\nline line of two"), "*** two2 *** line of two");
    assert_eq!(first.mask("one1 two2\nline"), "*** two2\nline");
    assert!(!more.is_empty());
    let short = more.with(vec![Secret::new("abc".into())]);
    let values: Vec<&str> = short.values().map(Secret::expose).collect();
    assert_eq!(values, ["one1", "a\nline of two", "two2\nline"]);
}

#[test]
fn what_is_decided_is_not_held_back() {
    let mut stream = MaskedOutput::new(&redactor(&["abcd", "abcdefgh", "xyz1"], Masking::Lines));
    let mut push = |text: &str| {
        let mut shown = String::new();
        stream.push(text.as_bytes(), &mut |it| shown += std::str::from_utf8(it).unwrap());
        (shown, stream.held())
    };
    for (text, want, held) in [
        ("line\n", "line\n", 0),
        ("xyz1", "***", 0),
        ("--abc", "--", 3),
        ("d", "", 4),
        ("efg", "", 7),
        ("abc", "***efg", 3),
        ("x", "abc", 1),
        ("y", "", 2),
        ("xy", "xy", 2),
        ("z1\n", "***\n", 0),
    ] {
        assert_eq!(push(text), (want.to_owned(), held), "after {text:?}");
    }
}

#[test]
fn bytes_that_are_no_text_pass() {
    let redactor = redactor(&["s3cr3t"], Masking::Lines);
    let text = b"\xff\xfes3cr3t\xc3\x28\0s3cr3t\xf0";
    let want = b"\xff\xfe***\xc3\x28\0***\xf0";
    assert_eq!(redactor.mask_bytes(text).as_ref(), want);
    assert_eq!(streamed(&redactor, text.chunks(1)), want);
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn text(&mut self, alphabet: &[u8], longest: usize) -> Vec<u8> {
        let length = self.below(longest + 1);
        (0..length).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }
}

/// Secrets, and a text that has them and pieces of them in it.
fn made_up(numbers: &mut Numbers) -> (Vec<String>, Vec<u8>) {
    let alphabets: [&[u8]; 4] = [b"ab", b"abc\n", b"*ab", b"abcdefgh\0\r\n"];
    let alphabet = alphabets[numbers.below(4)];
    let count = numbers.below(6);
    let text = |it: Vec<u8>| String::from_utf8(it).unwrap();
    let secrets: Vec<String> = (0..count).map(|_| text(numbers.text(alphabet, 12))).collect();
    let mut output = Vec::new();
    for _ in 0..numbers.below(12) {
        match (numbers.below(3), secrets.get(numbers.below(6))) {
            (0, _) | (_, None) => output.extend(numbers.text(alphabet, 9)),
            (1, Some(secret)) => output.extend_from_slice(secret.as_bytes()),
            (_, Some(secret)) => {
                output.extend_from_slice(&secret.as_bytes()[..numbers.below(secret.len() + 1)]);
                output.extend((numbers.below(9) == 0).then_some(0xff));
            }
        }
    }
    (secrets, output)
}

#[test]
fn a_stream_is_masked_as_the_whole_however_it_is_cut() {
    let mut numbers = Numbers(3);
    for round in 0..5_000 {
        let (secrets, text) = made_up(&mut numbers);
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        let masking = [Masking::Lines, Masking::Whole][numbers.below(2)];
        let redactor = redactor(&secrets, masking);
        let texts = redactor.patterns.as_ref().map_or(&[][..], |it| it.texts());
        let want = by_the_rule(texts, &text);
        assert_eq!(redactor.mask_bytes(&text), want, "round {round}: {secrets:?} in {text:?}");
        let mut chunks = Vec::new();
        let mut rest = &text[..];
        while !rest.is_empty() {
            let (chunk, left) = rest.split_at(numbers.below(rest.len().min(9) + 1));
            chunks.push(chunk);
            rest = left;
        }
        let shown = streamed(&redactor, chunks.iter().copied());
        assert_eq!(shown, want, "round {round}: {secrets:?} in {chunks:?}");
    }
}

#[test]
fn long_secrets_and_many_secrets_are_masked_in_chunks_of_any_size() {
    let mut numbers = Numbers(5);
    let alphabet = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut make = |length| {
        let text = (0..length).map(|_| alphabet[numbers.below(36)]).collect();
        String::from_utf8(text).unwrap()
    };
    let long = make(65_536);
    let many: Vec<String> = (0..1_000).map(|_| make(40)).collect();
    let mut secrets = vec![long.as_str()];
    secrets.extend(many.iter().map(String::as_str));
    let redactor = redactor(&secrets, Masking::Lines);
    let text = format!("{} {long} {}{}-", &long[..65_535], many[7], &many[999][..39]);
    let want = format!("{} *** ***{}-", &long[..65_535], &many[999][..39]);
    assert_eq!(redactor.mask(&text), want);
    for size in [1, 4_096, 65_535, 65_536, 100_000] {
        let shown = streamed(&redactor, text.as_bytes().chunks(size));
        assert!(shown == want.as_bytes(), "in chunks of {size}");
    }
}
