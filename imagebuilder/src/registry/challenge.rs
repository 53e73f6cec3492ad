//! What a registry asks for in `WWW-Authenticate` (RFC 9110, section 11.6.1).

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// A way to authenticate that we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token from a token service.
    Bearer {
        /// The URL of the token service.
        realm: String,
        /// The name by which it knows the registry.
        service: Option<String>,
    },
}

/// One challenge as it is written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Written {
    scheme: String,
    parameters: Vec<(String, String)>,
}

/// The best challenge among the headers, or the schemes of those that we do not know.
pub(super) fn choose(headers: &HeaderMap) -> Result<Challenge, String> {
    let values = headers.get_all(WWW_AUTHENTICATE).into_iter().filter_map(|it| it.to_str().ok());
    let written: Vec<Written> = values.flat_map(parse).collect();
    let known = |scheme: &str| written.iter().find(|it| it.scheme.eq_ignore_ascii_case(scheme));
    if let Some(bearer) = known("bearer")
        && let Some(realm) = bearer.parameter("realm")
    {
        return Ok(Challenge::Bearer { realm, service: bearer.parameter("service") });
    }
    if known("basic").is_some() {
        return Ok(Challenge::Basic);
    }
    Err(written.into_iter().map(|it| it.scheme).collect::<Vec<_>>().join(", "))
}

impl Written {
    fn parameter(&self, name: &str) -> Option<String> {
        let found = self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    }
}

/// A word that `=` follows is a parameter of the challenge before it; any other starts a new one.
fn parse(header: &str) -> Vec<Written> {
    let mut found: Vec<Written> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',', '=']);
        let (word, after) = split_word(rest);
        if word.is_empty() {
            return found;
        }
        let parameter = after.trim_start().strip_prefix('=');
        let (Some(value), Some(last)) = (parameter, found.last_mut()) else {
            found.push(Written { scheme: word.into(), parameters: Vec::new() });
            rest = after;
            continue;
        };
        let (value, after) = split_value(value.trim_start());
        last.parameters.push((word.into(), value));
        rest = after;
    }
}

fn split_word(text: &str) -> (&str, &str) {
    text.split_at(text.find([' ', '\t', ',', '=']).unwrap_or(text.len()))
}

/// Splits off a word, or a quoted string with its backslashes taken away.
fn split_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = split_word(text);
        return (word.into(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.map(Into::into) }
    }

    #[test]
    fn the_best_known_challenge_is_chosen() {
        for (headers, want) in [
            (&["Basic realm=\"Registry\""][..], Ok(Challenge::Basic)),
            (&["basic"], Ok(Challenge::Basic)),
            (
                &[
                    r#"Bearer realm="https://a.com/token",service="a.com",scope="repository:x:pull,push""#,
                ],
                Ok(bearer("https://a.com/token", Some("a.com"))),
            ),
            (
                &["bearer  Realm = https://a.com/t , error=invalid"],
                Ok(bearer("https://a.com/t", None)),
            ),
            (&[r#"Bearer realm="a\"b\\c, d=e""#], Ok(bearer(r#"a"b\c, d=e"#, None))),
            (&[r#"Basic realm="x", Bearer realm="r",service="""#], Ok(bearer("r", None))),
            (&["Basic realm=x", "Bearer realm=r"], Ok(bearer("r", None))),
            (&["Negotiate abc==, Basic realm=x"], Ok(Challenge::Basic)),
            (&["Negotiate, NTLM"], Err("Negotiate, NTLM".into())),
            (&["Bearer service=x"], Err("Bearer".into())),
            (&["Bearer realm=\"never closed"], Ok(bearer("never closed", None))),
            (&[",,= \t"], Err(String::new())),
            (&[], Err(String::new())),
        ] {
            let mut map = HeaderMap::new();
            for header in headers {
                map.append(WWW_AUTHENTICATE, header.parse().unwrap());
            }
            assert_eq!(choose(&map), want, "for {headers:?}");
        }
    }
}
