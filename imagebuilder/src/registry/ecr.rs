//! Recognises the registries of Amazon ECR by their host name.
//!
//! **Architecture invariant:** only a host below a domain of AWS matches, since what matches is
//! given a token for the caller's account.

/// The registry of Amazon ECR Public, whose own API is in us-east-1 alone.
pub const PUBLIC: &str = "public.ecr.aws";

/// A private registry of Amazon ECR.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EcrRegistry {
    /// The account that owns it: twelve digits.
    pub account: String,
    /// Its region: `eu-west-1`.
    pub region: String,
    /// Which of the region's endpoints it is.
    pub endpoint: Endpoint,
}

/// The two kinds of endpoints that a region has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// The usual one.
    Standard,
    /// The one with validated cryptography.
    Fips,
}

/// The DNS suffixes of AWS's partitions, for names with dots (`dkr.ecr`).
const SUFFIXES: [&str; 7] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "c2s.ic.gov",
    "cloud.adc-e.uk",
    "csp.hci.ic.gov",
    "sc2s.sgov.gov",
];

/// The DNS suffixes of the dual-stack endpoints, for names with a dash (`dkr-ecr`).
const DUAL_STACK_SUFFIXES: [&str; 2] = ["on.aws", "on.amazonwebservices.com.cn"];

impl EcrRegistry {
    /// Recognises `123456789012.dkr.ecr.eu-west-1.amazonaws.com` and its relatives.
    pub fn parse(registry: &str) -> Option<Self> {
        let registry = registry.to_ascii_lowercase();
        let (account, rest) = registry.split_once('.')?;
        let (endpoint, suffixes, rest) = split_service(rest)?;
        let (region, suffix) = rest.split_once('.')?;
        if !is_account(account) || !is_region(region) || !suffixes.contains(&suffix) {
            return None;
        }
        Some(Self { account: account.into(), region: region.into(), endpoint })
    }
}

fn split_service(text: &str) -> Option<(Endpoint, &'static [&'static str], &str)> {
    let services: [(&str, Endpoint, &'static [&'static str]); 4] = [
        ("dkr.ecr.", Endpoint::Standard, &SUFFIXES),
        ("dkr.ecr-fips.", Endpoint::Fips, &SUFFIXES),
        ("dkr-ecr.", Endpoint::Standard, &DUAL_STACK_SUFFIXES),
        ("dkr-ecr-fips.", Endpoint::Fips, &DUAL_STACK_SUFFIXES),
    ];
    services.into_iter().find_map(|(prefix, endpoint, suffixes)| {
        Some((endpoint, suffixes, text.strip_prefix(prefix)?))
    })
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|it| it.is_ascii_digit())
}

/// Words joined by dashes, the last a number: `us-gov-west-1`.
fn is_region(text: &str) -> bool {
    let Some((area, number)) = text.rsplit_once('-') else {
        return false;
    };
    let is_number = !number.is_empty() && number.bytes().all(|it| it.is_ascii_digit());
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit())
    };
    is_number && area.contains('-') && area.split('-').all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_of_every_partition_are_recognised() {
        for (host, region, endpoint) in [
            ("dkr.ecr.eu-west-1.amazonaws.com", "eu-west-1", Endpoint::Standard),
            ("dkr.ecr-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1", Endpoint::Fips),
            ("dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1", Endpoint::Standard),
            ("dkr.ecr.us-iso-east-1.c2s.ic.gov", "us-iso-east-1", Endpoint::Standard),
            ("dkr.ecr.us-isob-east-1.sc2s.sgov.gov", "us-isob-east-1", Endpoint::Standard),
            ("dkr.ecr.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1", Endpoint::Standard),
            ("dkr-ecr.eu-west-1.on.aws", "eu-west-1", Endpoint::Standard),
            ("dkr-ecr-fips.us-east-1.on.aws", "us-east-1", Endpoint::Fips),
            ("dkr-ecr.cn-north-1.on.amazonwebservices.com.cn", "cn-north-1", Endpoint::Standard),
            ("DKR.ECR.EU-WEST-1.AMAZONAWS.COM", "eu-west-1", Endpoint::Standard),
        ] {
            let (account, region) = ("123456789012".into(), region.into());
            let want = Some(EcrRegistry { account, region, endpoint });
            assert_eq!(EcrRegistry::parse(&format!("123456789012.{host}")), want, "for `{host}`");
        }
    }

    #[test]
    fn look_alikes_are_not() {
        for host in [
            "",
            "docker.io",
            "public.ecr.aws",
            "127.0.0.1:5000",
            "dkr.ecr.eu-west-1.amazonaws.com",
            "12345678901.dkr.ecr.eu-west-1.amazonaws.com",
            "1234567890123.dkr.ecr.eu-west-1.amazonaws.com",
            "12345678901a.dkr.ecr.eu-west-1.amazonaws.com",
            "a.123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.com",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com:443",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.",
            "123456789012.dkr.ecr.eu-west-1.evilamazonaws.com",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.co",
            "123456789012.dkr.ecr.eu-west-1.evil.amazonaws.com",
            "123456789012.dkr.ecr.evil.com",
            "123456789012.dkr.ecr.evil.com.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr..amazonaws.com",
            "123456789012.dkr.ecr.-1.amazonaws.com",
            "123456789012.dkr.ecr.eu--1.amazonaws.com",
            "123456789012.dkr.ecr.evil.amazonaws.com",
            "123456789012.dkr.ecr.eu-west-1.on.aws",
            "123456789012.dkr-ecr.eu-west-1.amazonaws.com",
            "123456789012.dkr-ecr.eu-west-1.on.aws.evil.com",
            "123456789012.dkr.ecrx.eu-west-1.amazonaws.com",
            "123456789012-dkr.ecr.eu-west-1.amazonaws.com",
        ] {
            assert_eq!(EcrRegistry::parse(host), None, "for `{host}`");
        }
    }
}
