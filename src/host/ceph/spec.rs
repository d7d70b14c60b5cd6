//! `POOL/[NAMESPACE/]IMAGE[@SNAPSHOT]`.

use std::fmt;
use std::str::FromStr;

/// Names an RBD image or one of its snapshots, as the `rbd` command does; the pool is never left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The pool.
    pub pool: String,
    /// The namespace in it; empty for the default one.
    pub namespace: String,
    /// The image.
    pub image: String,
    /// The snapshot, if one is named.
    pub snapshot: Option<String>,
}

impl Spec {
    /// The image without the snapshot, as it is written.
    pub fn image_name(&self) -> String {
        let Spec { pool, namespace, image, .. } = self;
        if namespace.is_empty() { format!("{pool}/{image}") } else { format!("{pool}/{namespace}/{image}") }
    }
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Spec, String> {
        // Image names hold no @ (the rbd command refuses them); snapshot names may hold anything but @ and /.
        let (path, snapshot) = match text.split_once('@') {
            Some((path, snapshot)) => (path, Some(snapshot.to_owned())),
            None => (text, None),
        };
        let wrong = || format!("{text} is not of the form POOL/IMAGE@SNAPSHOT or POOL/NAMESPACE/IMAGE@SNAPSHOT");
        let parts: Vec<&str> = path.split('/').collect();
        let (pool, namespace, image) = match parts.as_slice() {
            [pool, image] => (*pool, "", *image),
            [pool, namespace, image] if !namespace.is_empty() => (*pool, *namespace, *image),
            _ => return Err(wrong()),
        };
        let bad = |name: &str| name.is_empty() || name.contains('@') || name.contains('/');
        if pool.is_empty() || image.is_empty() || snapshot.as_deref().is_some_and(bad) {
            return Err(wrong());
        }
        Ok(Spec { pool: pool.to_owned(), namespace: namespace.to_owned(), image: image.to_owned(), snapshot })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.image_name())?;
        self.snapshot.as_ref().map_or(Ok(()), |snapshot| write!(f, "@{snapshot}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Spec;

    #[test]
    fn specs_are_read_as_rbd_writes_them() {
        for text in ["rbd/vm1", "rbd/vm1@mon", "rbd/ns/vm1", "rbd/ns/vm1@2026-11-21T0200Z", "p/i@with space:colon"] {
            assert_eq!(text.parse::<Spec>().unwrap().to_string(), text);
        }
        for bad in ["", "vm1", "vm1@mon", "/vm1", "rbd/", "rbd//vm1", "a/b/c/d", "rbd/vm1@", "rbd/vm1@a@b", "rbd/vm1@a/b", "@"] {
            assert!(bad.parse::<Spec>().is_err(), "{bad}");
        }
    }
}
