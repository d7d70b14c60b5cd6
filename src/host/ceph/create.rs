//! Making RBD images.

use std::ffi::{CStr, c_int};
use std::ptr;

use super::cluster::Pool;
use super::error::{c_string, check};
use super::ffi::{RawOptions, RbdWriting};
use super::image::{Image, feature};
use crate::state::Fault;

/// `RBD_IMAGE_OPTION_*` of rbd/librbd.h.
mod option {
    pub const FEATURES: i32 = 1;
    pub const ORDER: i32 = 2;
    pub const STRIPE_UNIT: i32 = 3;
    pub const STRIPE_COUNT: i32 = 4;
    pub const DATA_POOL: i32 = 10;
}

/// How an image is to be made; what is `None` is as the cluster's configuration says. Sizes are bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Creation {
    /// Feature bits: [`feature`].
    pub features: Option<u64>,
    /// Bytes of an object, a power of two.
    pub object_size: Option<u64>,
    /// Bytes of a stripe's part in one object, and the objects that a stripe goes over.
    pub striping: Option<(u64, u64)>,
    /// The pool for the objects with content.
    pub data_pool: Option<String>,
}

impl Creation {
    /// As this image is made, as far as that makes sense in a copy.
    pub fn like(image: &Image) -> Result<Creation, Fault> {
        let layout = image.layout()?;
        Ok(Creation {
            features: Some(image.features()? & feature::OF_A_COPY),
            object_size: Some(layout.object),
            striping: Some((image.stripe_unit()?, layout.stripe_count)),
            data_pool: image.data_pool()?,
        })
    }

    /// Makes an image of `size` bytes, which read as zero.
    pub fn create(&self, pool: &Pool, name: &str, size: u64) -> Result<(), Fault> {
        let (_, calls) = pool.cluster().ceph.writing()?;
        let options = Options::new(calls);
        let numbers = [
            (option::FEATURES, self.features),
            (option::ORDER, self.object_size.map(|size| size.trailing_zeros().into())),
            (option::STRIPE_UNIT, self.striping.map(|(unit, _)| unit)),
            (option::STRIPE_COUNT, self.striping.map(|(_, count)| count)),
        ];
        for (option, number) in numbers {
            number.map_or(Ok(()), |number| options.number(option, number))?;
        }
        if let Some(pool) = &self.data_pool {
            options.text(option::DATA_POOL, &c_string(pool.as_str())?)?;
        }
        let name = c_string(name)?;
        // SAFETY: the pool's handle and the options are live, the string lives across the call.
        let code = unsafe { (calls.rbd_create4)(pool.raw, name.as_ptr(), size, options.raw) };
        check(code, "creating the image").map(|_| ())
    }
}

/// librbd's own set of options.
struct Options {
    calls: &'static RbdWriting,
    raw: RawOptions,
}

impl Options {
    fn new(calls: &'static RbdWriting) -> Options {
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` takes the handle.
        unsafe { (calls.rbd_image_options_create)(&mut raw) };
        Options { calls, raw }
    }

    fn number(&self, option: c_int, value: u64) -> Result<(), Fault> {
        // SAFETY: the handle is live.
        let code = unsafe { (self.calls.rbd_image_options_set_uint64)(self.raw, option, value) };
        check(code, format_args!("option {option} of the new image")).map(|_| ())
    }

    fn text(&self, option: c_int, value: &CStr) -> Result<(), Fault> {
        // SAFETY: the handle is live, the string lives across the call and is copied.
        let code = unsafe { (self.calls.rbd_image_options_set_string)(self.raw, option, value.as_ptr()) };
        check(code, format_args!("option {option} of the new image")).map(|_| ())
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and nobody else has it.
        unsafe { (self.calls.rbd_image_options_destroy)(self.raw) }
    }
}
