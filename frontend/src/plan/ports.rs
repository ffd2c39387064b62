//! The words of EXPOSE: `[ip:][host:]port[-port][/protocol]`.

/// What a word of EXPOSE says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Exposed {
    /// Ports with their protocol, ranges unrolled: `80/tcp`.
    pub(crate) ports: Vec<String>,
    /// Whether the protocol is written in lower case.
    pub(crate) lower_case: bool,
    /// Whether it names a port or an address of the host, which EXPOSE has no use for.
    pub(crate) has_host_part: bool,
}

/// Why a word is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PortError {
    #[error("no port specified: {0}<empty>")]
    Missing(String),
    #[error("invalid proto: {0}")]
    Protocol(String),
    #[error("invalid IP address: {0}")]
    Address(String),
    #[error("invalid containerPort: {0}")]
    ContainerPort(String),
    #[error("invalid hostPort: {0}")]
    HostPort(String),
}

/// Reads one word.
pub(crate) fn parse(word: &str) -> Result<Exposed, PortError> {
    let (rest, container) = word.rsplit_once(':').unwrap_or(("", word));
    let (address, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let (container, protocol) = container.split_once('/').unwrap_or((container, ""));
    if container.is_empty() {
        return Err(PortError::Missing(word.to_owned()));
    }
    let lower = protocol.to_lowercase();
    let name = match lower.as_str() {
        "" => "tcp",
        "tcp" | "udp" | "sctp" => &lower,
        _ => return Err(PortError::Protocol(protocol.to_owned())),
    };
    if !address.is_empty() && !is_address(address) {
        return Err(PortError::Address(address.to_owned()));
    }
    let (first, last) =
        range(container).ok_or_else(|| PortError::ContainerPort(container.to_owned()))?;
    if !host.is_empty() && range(host).is_none() {
        return Err(PortError::HostPort(host.to_owned()));
    }
    Ok(Exposed {
        ports: (first..=last).map(|port| format!("{port}/{name}")).collect(),
        lower_case: lower == protocol,
        has_host_part: !rest.is_empty(),
    })
}

fn is_address(address: &str) -> bool {
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(address).parse::<std::net::IpAddr>().is_ok()
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_unrolled_and_protocols_lower_cased() {
        assert_eq!(parse("80").unwrap().ports, ["80/tcp"]);
        assert_eq!(parse("8000-8002/UDP").unwrap().ports, ["8000/udp", "8001/udp", "8002/udp"]);
        assert!(!parse("80/TCP").unwrap().lower_case);
        let mapped = parse("[::1]:8080:80/sctp").unwrap();
        assert_eq!((mapped.ports, mapped.has_host_part), (vec!["80/sctp".to_owned()], true));
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for (word, message) in [
            ("80/foo", "invalid proto: foo"),
            ("70000", "invalid containerPort: 70000"),
            ("5-3", "invalid containerPort: 5-3"),
            ("x:80", "invalid hostPort: x"),
            ("1.2.3:80:80", "invalid IP address: 1.2.3"),
            ("/tcp", "no port specified: /tcp<empty>"),
        ] {
            assert_eq!(parse(word).unwrap_err().to_string(), message);
        }
    }
}
