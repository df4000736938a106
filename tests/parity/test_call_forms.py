"""The many ways to write one call: positions, names, sizes as one tuple or as many numbers, and what is refused.

Each line is evaluated in both packages, with ``torch`` and ``F`` and a few tensors at hand, and gives the same values, shapes and
dtypes, or the same type of exception.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import disttorch

FORMS = """
    torch.sum(x); torch.sum(x, 0); torch.sum(x, (0, 1), True); torch.sum(x, dim=[0, 1])
    torch.sum(x, 0, True, dtype=torch.float64); torch.sum(x, axis=1); torch.sum(x, axis=(0, 1), keepdims=True)
    torch.sum(x, 1, keepdims=True); torch.sum(x, dtype=torch.float64); x.sum(0, 1); x.sum(0, True); x.sum((0, 1)); x.sum(-1)
    x.sum(dim=None); x.sum(dim=(0, 1), keepdim=True); x.sum(1, dtype=torch.float64); x.sum(axis=0); x.sum(keepdims=True)
    x.sum(0, 1, 2); x.sum("a"); x.sum(dims=1); torch.sum(); torch.sum(3); x.sum(dim=2); x.mean(0, True); x.mean((0, 1))
    x.mean(axis=1, keepdims=True); torch.mean(x, [0]); i.mean(); i.mean(dtype=torch.float32); x.std(); x.std(unbiased=False)
    x.std(False); torch.std(x, 0, False); torch.std(x, 0, False, True); x.std(1, correction=0)
    x.std(dim=1, unbiased=True, keepdim=True); torch.std(x, (0, 1)); torch.std(x, axis=0, keepdims=True)
    x.std(0, True, True, 1); x.var(); x.var(False); x.var(0, unbiased=False); torch.var(x, dim=0, correction=2)
    torch.var(x, correction=0); torch.var_mean(x, 0, False); torch.std_mean(x, unbiased=False); torch.std_mean(x, axis=1)
    x.var(dim=0, unbiased=False, correction=0); torch.max(x); torch.max(x, 0); torch.max(x, 0, True); torch.max(x, y)
    torch.max(x, other=y); x.max(y); x.max(dim=1); x.max(1, keepdim=True); x.max(axis=1); x.max(dim=1).values; x.max(1)[1]
    x.min(); x.min(0).indices; torch.min(x, dim=0); torch.max(x, 0.5); torch.max(x, dim=5); x.max(axis=0, keepdims=True)
    torch.max(input=x, dim=0); x.amax(); x.amax((0, 1)); x.amax(0, True); torch.amax(x, axis=1); torch.amin(x, dim=[0])
    x.aminmax(dim=0); torch.aminmax(x); x.aminmax(0); x.argmax(); x.argmax(1); x.argmax(1, True)
    x.argmax(axis=1, keepdims=True); torch.argmin(x, -1); x.argmax(dim=None, keepdim=True); torch.argmax(x, dim=7); x.prod()
    x.prod(1); x.prod(1, True); torch.prod(x, dtype=torch.float64); x.prod((0, 1)); x.all(); x.any(1); b.all(0, True)
    b.any(dim=(0, 1)); b.any(axis=0); torch.all(b, 1, keepdim=True); x.logsumexp(1); x.logsumexp((0, 1), True)
    torch.logsumexp(x); x.norm(); x.norm(1); x.norm(2, 1); x.norm(2, 1, True); x.norm(dim=1); x.norm(p="fro")
    torch.norm(x, 2, 0); x.norm(2, 1, True, torch.float64); torch.norm(x, p=1, dim=(0, 1)); torch.norm(x, dtype=torch.float64)
    torch.linalg.norm(x, axis=1); torch.linalg.norm(x, 2, (0, 1)); torch.linalg.norm(x, ord="fro"); torch.linalg.norm(input=x)
    torch.linalg.vector_norm(x, 1, 0, True); torch.linalg.matrix_norm(x, "nuc"); torch.median(x); torch.median(x, 0)
    x.median(dim=1, keepdim=True); x.mode(); x.mode(0); x.cumsum(0); x.cumsum(dim=1); x.cumsum(axis=1); x.cumsum()
    torch.cumprod(x, 0, dtype=torch.float64); x.sort(); x.sort(0); x.sort(0, True); x.sort(descending=True)
    x.sort(dim=0, stable=True); torch.sort(x, stable=True, dim=0); x.argsort(0, True); x.argsort(descending=True); x.topk(2)
    x.topk(2, 0); x.topk(k=1, dim=1, largest=False); torch.topk(x, 2, -1, False, True); x.kthvalue(2)
    torch.kthvalue(x, 1, 0, True); x.unique(); torch.unique(i, True, True); x.count_nonzero(0)

    x.permute(1, 0); x.permute((1, 0)); x.permute([1, 0]); x.permute(dims=(1, 0)); torch.permute(x, (1, 0))
    torch.permute(x, 1, 0); x.permute(); x.permute(0); x.permute(0, 0); x.transpose(0, 1); x.transpose(dim0=0, dim1=1)
    torch.transpose(x, 0, 1); x.transpose(0); x.t(); x.T; x.swapaxes(0, 1); torch.swapaxes(x, axis0=0, axis1=1)
    x.movedim(0, 1); torch.moveaxis(x, (0, 1), (1, 0)); x.movedim(source=0, destination=1); x.view(-1); x.view(4, 3)
    x.view((4, 3)); x.view([4, 3]); x.view(torch.Size([4, 3])); x.view(size=(4, 3)); x.view(torch.int32); x.view(5)
    x.view(dtype=torch.int32); x.view(); x.view("a"); x.view(2.0); x.view(-1, -1); x.reshape(-1); x.reshape(4, 3)
    x.reshape((4, 3)); x.reshape(shape=(4, 3)); torch.reshape(x, (4, 3)); torch.reshape(x, [-1]); torch.reshape(x, 4, 3)
    x.reshape(); x.reshape(2, -1, 2); x.view_as(x); x.reshape_as(x); x.expand(2, 3, 4); x.expand((2, 3, 4))
    x.expand(2, -1, -1); x.expand(size=(2, 3, 4)); x.expand([2, 3, 4]); x.expand(2); x.expand_as(x)
    torch.broadcast_to(x, (2, 3, 4)); x.broadcast_to((2, 3, 4)); x.broadcast_to(2, 3, 4); x.repeat(2, 2); x.repeat((2, 2))
    x.repeat([1, 2]); x.repeat(repeats=(2, 1)); x.repeat(2); x.repeat(2, 1, 1); x.tile(2); x.tile((2, 1)); x.tile(2, 1)
    torch.tile(x, (2,)); torch.tile(x, 2, 1); x.flip(0); x.flip(0, 1); x.flip((0, 1)); x.flip([0]); x.flip(dims=(0,))
    torch.flip(x, (0, 1)); torch.flip(x, [1]); torch.flip(x, 0); x.flip(); x.roll(1); x.roll(1, 0); x.roll((1, 1), (0, 1))
    x.roll(shifts=1, dims=0); torch.roll(x, 1, 0); torch.roll(x, shifts=(1, 2), dims=(0, 1)); x.rot90()
    torch.rot90(x, 1, (0, 1)); torch.rot90(x, 2, [0, 1]); x.squeeze(); x.squeeze(0); z.squeeze(0); z.squeeze((0, 2))
    z.squeeze(dim=0); z.squeeze(axis=0); torch.squeeze(z, (0, 1)); z.squeeze(0, 2); x.unsqueeze(0); x.unsqueeze(-1)
    x.unsqueeze(dim=1); torch.unsqueeze(x, axis=1); x.unsqueeze(); x.unsqueeze(None); x.unsqueeze(0, 1); x.flatten()
    x.flatten(0); x.flatten(0, 1); x.flatten(start_dim=0, end_dim=1); x.ravel(); z.flatten(1); torch.flatten(z, 0, -1)
    x.unflatten(1, (2, 2)); x.unflatten(dim=1, sizes=(2, -1)); torch.unflatten(x, 1, [2, 2]); x.split(2); x.split([1, 2])
    x.split(1, 1); x.split(split_size=2, dim=1); torch.split(x, (1, 2)); torch.split(x, 2, dim=1); x.split((1, 2), dim=0)
    torch.split(x, split_size_or_sections=2); x.chunk(2); x.chunk(2, 1); x.chunk(chunks=2, dim=1); torch.chunk(x, 2, axis=1)
    x.unbind(); x.unbind(1); torch.unbind(x, dim=1); x.tensor_split(2); x.tensor_split((1, 2)); x.tensor_split(2, dim=1)
    torch.tensor_split(x, sections=2); torch.tensor_split(x, indices=(1,), dim=1); x.narrow(0, 1, 2)
    x.narrow(dim=0, start=1, length=2); x.select(0, 1); x.select(dim=1, index=-1); torch.cat((x, y)); torch.cat([x, y], 1)
    torch.cat((x, y), dim=1); torch.cat((x, y), axis=1); torch.cat(tensors=(x, y)); torch.cat(x, y); torch.cat(x)
    torch.concat([x, y], -1); torch.concatenate((x, y), axis=0); torch.stack((x, y)); torch.stack([x, y], 1)
    torch.stack((x, y), dim=-1); torch.stack([]); torch.hstack((x, y)); torch.vstack([x, y]); torch.atleast_2d(x, y)
    torch.atleast_3d((x, y)); torch.meshgrid(v, v, indexing="ij"); torch.meshgrid([v, v], indexing="xy")
    torch.broadcast_tensors(x, v); torch.block_diag(x, y); torch.cartesian_prod(v, v); x.diagonal(1); x.diagonal(0, 0, 1)
    x.diagonal(offset=-1); torch.diag(v, 1); x.diag(); torch.diag_embed(v, dim1=0, dim2=1); x.tril(1)
    torch.triu(x, diagonal=-1)

    torch.zeros(2, 3); torch.zeros((2, 3)); torch.zeros([2, 3]); torch.zeros(size=(2, 3)); torch.zeros(2, 3, dtype=torch.int64)
    torch.zeros(()); torch.zeros(); torch.zeros(2); torch.zeros(torch.Size([2])); torch.zeros(2.5); torch.zeros(-1)
    torch.zeros(2, device="cpu"); torch.ones(2, 3); torch.ones((2,)); torch.full((2, 3), 1); torch.full((2,), 1.5)
    torch.full([2], True); torch.full(size=(2,), fill_value=3); torch.full((2,), 1, dtype=torch.float32); torch.full(2, 3)
    torch.full((2,)); torch.zeros_like(x); torch.zeros_like(x, dtype=torch.int32); torch.ones_like(input=x)
    torch.full_like(x, 2); torch.full_like(x, fill_value=2.5, dtype=torch.float64); x.new_zeros(2, 3); x.new_zeros((2, 3))
    x.new_zeros([2]); x.new_zeros(size=(2,)); x.new_zeros(2, dtype=torch.int64); x.new_ones(2)
    x.new_ones((2, 3), dtype=torch.bool); x.new_full((2,), 3.0); x.new_full(size=(2,), fill_value=1); x.new_tensor([1, 2])
    x.new_tensor(3); x.new_empty(2, 3).shape; x.new_empty((0,)); torch.empty(0, 3); torch.empty((2, 0))
    torch.empty(2, 3).shape; torch.eye(3); torch.eye(2, 3); torch.eye(n=2, m=1); torch.arange(5); torch.arange(1, 5)
    torch.arange(1, 5, 2); torch.arange(5.0); torch.arange(end=3); torch.arange(start=1, end=3); torch.arange(1, 2, 0.25)
    torch.arange(5, dtype=torch.float32); torch.arange(); torch.arange(0, 5, step=2); torch.arange(3, 1)
    torch.linspace(0, 1, 5); torch.linspace(0, 1, steps=3); torch.linspace(start=0, end=1, steps=2, dtype=torch.float64)
    torch.linspace(0, 1); torch.logspace(0, 1, 3); torch.logspace(0, 2, 3, 2); torch.logspace(0, 1, steps=2, base=2)
    torch.tensor([1, 2]); torch.tensor(data=[1.0]); torch.tensor(3); torch.tensor([[1], [2]], dtype=torch.float64)
    torch.tensor([1], torch.float32); torch.tensor(); torch.as_tensor([1, 2]); torch.as_tensor([1], dtype=torch.float32)
    torch.as_tensor([1], torch.float32); torch.tensor([True]); torch.tensor([1j]); torch.tensor([]); torch.rand(2, 3).shape
    torch.rand((2, 3)).shape; torch.rand(size=(2,)).shape; torch.randn(2, 3).shape; torch.randn([2]).shape
    torch.randn(()).shape; torch.rand().shape; torch.randint(3, (2,)).shape; torch.randint(1, 3, (2,)).dtype
    torch.randint(0, 3, size=(2, 2)).shape; torch.randint(high=3, size=(2,)).shape
    torch.randint(low=0, high=2, size=(1,)).shape; torch.randint(3, 2); torch.randint(3); torch.randperm(4).shape
    torch.randperm(n=4).dtype; torch.randint_like(x, 3).dtype; torch.randint_like(x, 1, 3).shape; torch.rand_like(x).shape
    torch.randn_like(x, dtype=torch.float64).dtype; torch.normal(0.0, 1.0, (2,)).shape; torch.normal(x, 1.0).shape
    torch.normal(mean=0.0, std=1.0, size=(2, 3)).shape; torch.bernoulli(b.float()).shape; torch.bernoulli(x, 0.5).shape
    torch.multinomial(v, 2).shape; torch.multinomial(v, 2, True).shape
    torch.multinomial(input=v, num_samples=1, replacement=True).dtype; torch.poisson(input=v).shape
    torch.binomial(count=v, prob=v / 9).shape; torch.tril_indices(3, 3); torch.triu_indices(2, 3, 1)
    torch.tril_indices(row=2, col=2, offset=-1)

    torch.add(x, y); torch.add(x, 1); torch.add(x, y, alpha=2); torch.add(input=x, other=y); x.add(y, alpha=2); x.add(other=2)
    x.add(1, 2); torch.add(x); torch.add(x, y, 2); torch.sub(x, y, alpha=3); x.sub(1); torch.subtract(x, 1); torch.rsub(x, 1)
    torch.mul(x, 2); x.multiply(y); torch.mul(2, 3); torch.add(x, "a"); torch.div(x, y); torch.div(x, y, rounding_mode="floor")
    x.div(2, rounding_mode="trunc"); torch.div(x, 2, rounding_mode=None); x.div(y, "floor")
    torch.div(x, y, rounding_mode="up"); torch.true_divide(x, 2); x.floor_divide(2); torch.remainder(x, 2)
    torch.remainder(3, x); x.fmod(2); torch.pow(x, 2); torch.pow(2, x); torch.pow(x, y); x.pow(exponent=2); x ** 2; 2 ** x
    x.pow(2, 3); torch.clamp(x, 0); torch.clamp(x, 0, 1); torch.clamp(x, max=1); torch.clamp(x, min=0.2, max=0.6)
    x.clamp(0.1, 0.5); x.clamp(); x.clamp(min=y); x.clamp(max=y, min=0); x.clip(0, 1); x.clamp_min(0.5)
    torch.clamp_max(x, max=0.5); torch.lerp(x, y, 0.5); x.lerp(end=y, weight=0.5); torch.where(b, x, y); torch.where(b, x, 0.0)
    torch.where(b); torch.where(condition=b, input=x, other=y); x.where(b, y); x.where(b, 0); torch.where(b, x)
    torch.where(b, 1.0, 2.0); x.masked_fill(b, 1); x.masked_fill(mask=b, value=2.0); x.addcmul(x, y); x.addcmul(x, y, value=2)
    torch.addcdiv(x, x, y + 1, value=0.5); torch.addcmul(x, 2, x, y); torch.maximum(x, y); torch.maximum(x, 1)
    torch.atan2(x, y); torch.hypot(x, y); torch.isclose(x, y); torch.isclose(x, y, 1e-3, 1e-3, True)
    torch.allclose(x, x, rtol=0, atol=0); x.eq(1); x.eq(y); torch.eq(x, other=0); torch.eq(1, x); x == 1; x.ne(None); x == None
    torch.nan_to_num(x, 1.0); torch.nan_to_num(x, nan=0, posinf=1, neginf=2); x.round(); x.round(decimals=1)
    torch.round(x, decimals=2); x.round(1); torch.logit(v / 9, 0.1); torch.logit(v / 9, eps=1e-3); torch.exp(x, y); torch.exp()
    torch.exp("a"); torch.exp(2.0); torch.abs(input=x); torch.sqrt(x, dtype=torch.float32); torch.sigmoid(x, 1); x.exp(1)
    torch.polygamma(1, v); v.polygamma(1); torch.softmax(x, 0); torch.softmax(x, dim=1); torch.softmax(x, 1, torch.float64)
    x.softmax(-1); x.softmax(1, dtype=torch.float64); torch.softmax(x); x.softmax(axis=1); x.softmax(1, torch.float64)
    torch.log_softmax(x, 1); x.log_softmax(dim=0); torch.log_softmax(x, 1, torch.float64); F.softmax(x, 1)
    F.softmax(x, dim=1, dtype=torch.float64); F.log_softmax(x, -1); torch.special.softmax(x, 1); torch.matmul(x, m); x @ m
    torch.mm(x, m); torch.mm(x, mat2=m); torch.mm(input=x, mat2=m); x.mm(m); torch.mv(m, vec=w); torch.dot(w, tensor=w)
    torch.bmm(z, mat2=z.mT); torch.outer(w, vec2=w); torch.ger(w, w); torch.inner(w, w); torch.addmm(x[:, :3], x, m)
    torch.addmm(x[:, :3], x, m, beta=0.5, alpha=2); torch.addmm(0.5, x[:, :3], x, m); torch.addmm(x[:, :3], mat1=x, mat2=m)
    torch.mm(x, x); torch.baddbmm(z @ z.mT, z, z.mT); torch.addmv(w[:1].expand(4), m, w); torch.addr(m, v, w)
    torch.chain_matmul(x, m); torch.linalg.multi_dot([x, m]); torch.tensordot(x, y, 2); torch.tensordot(x, y, dims=([0], [0]))
    torch.einsum("ij,ij->i", x, y); torch.einsum("ij,ij->i", [x, y]); torch.einsum("ij->ji", x)
    torch.einsum(x, [0, 1], [1, 0]); torch.kron(x, y); torch.cross(w, w); torch.cross(w, w, dim=0); torch.cross(w, w, 0)
    torch.cdist(x, y); torch.cdist(x, y, 1); torch.cdist(x1=x, x2=y, p=2.0); torch.dist(x, y, 1); torch.trace(s); torch.det(s)
    torch.det(input=s); torch.linalg.det(A=s); torch.inverse(s); torch.linalg.inv(s); torch.matrix_power(s, 2)
    torch.linalg.matrix_power(s, n=2); torch.linalg.solve(s, w); torch.linalg.solve(A=s, B=w); torch.linalg.cholesky(s)
    torch.linalg.cholesky(s, upper=True); torch.cholesky(s, True); torch.linalg.svdvals(x); torch.linalg.cross(w, w, dim=0)
    torch.linalg.vecdot(x, y, dim=0); torch.linalg.vander(w, N=2); torch.linalg.matrix_rank(s, tol=0.1)
    torch.linalg.lstsq(s, w)[0]; torch.linalg.pinv(s, 1e-6); torch.linalg.eigvalsh(s, "U"); torch.linalg.cond(s, 2)
    torch.fft.fft(x); torch.fft.fft(x, 3); torch.fft.fft(x, 3, 0, "ortho"); torch.fft.fft(x, axis=0)
    torch.fft.rfft(x, n=2, dim=0, norm="forward"); torch.fft.fftn(x, (2, 2)); torch.fft.fftn(x, dim=(0,))
    torch.fft.fftfreq(4, d=0.5)

    x.gather(1, j); torch.gather(x, 1, j); x.gather(dim=1, index=j); torch.gather(x, index=j, dim=1); x.scatter(1, j, y)
    x.scatter(1, j, 2.0); x.scatter(1, j, value=3); x.scatter(dim=1, index=j, src=y); x.scatter(1, j, y, reduce="add")
    x.scatter_add(1, j, y); x.scatter_reduce(1, j, y, "sum"); x.scatter_reduce(1, j, y, reduce="amax", include_self=False)
    x.index_select(0, k); torch.index_select(x, dim=1, index=k); x.index_add(0, k, y[:2]); x.index_add(0, k, y[:2], alpha=2)
    x.index_add(dim=0, index=k, source=y[:2]); x.index_fill(0, k, 1); x.index_copy(0, k, y[:2]); x.take(k)
    torch.take_along_dim(x, j, 1); x.take_along_dim(j, dim=1); x.masked_select(b); torch.masked_select(input=x, mask=b)
    x.nonzero(); x.nonzero(as_tuple=True); torch.nonzero(b, as_tuple=False); torch.argwhere(b); x.index_put((k,), y[:2])
    x.index_put((k, k), torch.ones(2), accumulate=True); x.index_put(indices=[k], values=y[0]); torch.searchsorted(v, w)
    torch.searchsorted(v, 1.5, right=True); torch.bucketize(x, v); torch.bucketize(x, boundaries=v, right=True)
    torch.bincount(k); torch.bincount(k, minlength=5); torch.histc(x, 4); torch.histc(x, bins=4, min=0, max=1); torch.diff(x)
    torch.diff(x, 1, 0); torch.diff(x, n=2, dim=1); torch.diff(x, axis=0); x.repeat_interleave(2); x.repeat_interleave(2, 0)
    x.repeat_interleave(repeats=k, dim=1); torch.repeat_interleave(k); torch.repeat_interleave(x, 2, dim=1)
    torch.quantile(x, 0.5); torch.quantile(x, 0.5, 1, True); x.quantile(v / 9, dim=0); torch.one_hot(k); F.one_hot(k, 4)
    F.one_hot(k, num_classes=4); F.one_hot(input=k)

    x.to(torch.float64); x.to("cpu"); x.to("cpu", torch.float64); x.to(y); x.to(y.double()); x.to(dtype=torch.int64)
    x.to(device="cpu", dtype=torch.float16); x.to(torch.float64, True); x.to(torch.float64, non_blocking=True, copy=True)
    x.to(other=x); x.to(tensor=y.double()); x.to(torch.device("cpu")); x.to(None); x.to("cpu", non_blocking=True)
    x.to(dtype="float64"); x.type(torch.float64); x.type("torch.DoubleTensor"); x.type_as(i); x.double(); x.int(); x.bool()
    x.clone(memory_format=torch.contiguous_format); x.contiguous(); x.numel(); x.size(); x.size(0); x.size(dim=1); x.size(-1)
    x.size(5); x.stride(); x.stride(0); x.stride(dim=1); x.dim(); x.ndimension(); x.nelement(); x.is_contiguous()
    torch.numel(x); x.item(); x.tolist(); w[0].item(); x.element_size(); torch.is_tensor(x); torch.is_floating_point(x)
    torch.result_type(x, 1); torch.promote_types(torch.int32, torch.float32); torch.can_cast(torch.float32, torch.int32)
    torch.numel(input=x); x.clone().fill_(2); x.clone().fill_(value=2); x.clone().zero_(); x.clone().add_(1)
    x.clone().add_(y, alpha=2); x.clone().mul_(2); x.clone().clamp_(0, 0.5); x.clone().copy_(y)
    x.clone().copy_(src=y, non_blocking=True); x.clone().copy_(other=y); x.clone().exp_(1); x.clone().masked_fill_(b, 0)
    x.clone().index_add_(0, k, y[:2]); x.clone().scatter_(1, j, 1.0); x.clone().uniform_(0, 1).shape
    x.clone().uniform_(from_=0); x.clone().normal_(mean=0, std=1).shape; x.clone().random_(3).shape
    x.clone().random_(0, 3).shape; x.clone().squeeze_(0); z.clone().squeeze_(0); x.clone().unsqueeze_(0); x.clone().t_()
    x.clone().transpose_(0, 1); x.clone().resize_(2, 2); x.clone().resize_((2, 2)); x.clone().cumsum_(0)
    x.clone().cumsum_(axis=0); x.clone().requires_grad_(False); x.clone().detach_(); torch.add(x, y, out=torch.empty(3, 4))
    torch.sum(x, 0, out=torch.empty(4)); torch.max(x, 0, out=(torch.empty(4), torch.empty(4).long()))
    torch.cat((x, y), out=torch.empty(0)); torch.matmul(x, m, out=torch.empty(0)); torch.exp(x, out=3); torch.abs_(x.clone())
    torch.clamp_(input=x.clone(), min=0.5); torch.nan_to_num_(x.clone()); torch.neg_(x.clone())
    torch.round_(x.clone(), decimals=1)

    F.relu(x); F.relu(x, True); F.relu(input=x, inplace=False); F.gelu(x); F.gelu(x, approximate="tanh"); F.gelu(x, "tanh")
    F.leaky_relu(x, 0.2); F.leaky_relu(x, negative_slope=0.1); F.elu(x, 0.5); F.hardtanh(x, -1, 0.5); F.softplus(x, 2, 1)
    F.glu(x, 0); F.threshold(x, 0.5, 0); F.dropout(x, 0.0); F.dropout(x, p=0.0, training=False); F.dropout(x, training=False)
    F.linear(x, m.T); F.linear(x, m.T, w); F.linear(input=x, weight=m.T, bias=None); F.embedding(k, x)
    F.embedding(input=k, weight=x, padding_idx=0); F.normalize(x, 1, 0); F.normalize(x, dim=1, eps=1e-3); F.mse_loss(x, y)
    F.mse_loss(x, y, reduction="sum"); F.mse_loss(x, y, reduction="x"); F.mse_loss(input=x, target=y)
    F.l1_loss(x, y, None, None, "none"); F.cross_entropy(x, t); F.cross_entropy(x, t, v)
    F.cross_entropy(x, t, weight=v, ignore_index=1, reduction="sum", label_smoothing=0.1); F.nll_loss(x, t)
    F.nll_loss(x, t, reduction="none"); F.kl_div(x, y, reduction="batchmean"); F.binary_cross_entropy(x, y)
    F.binary_cross_entropy_with_logits(x, y, pos_weight=v); F.smooth_l1_loss(x, y, beta=0.5); F.huber_loss(x, y, delta=0.5)
    F.cosine_similarity(x, y); F.cosine_similarity(x, y, 0); F.conv2d(q, q); F.conv2d(q, q, None, 1, 1)
    F.conv2d(q, q, stride=(1, 1), padding="same"); F.conv2d(q, q, padding=1, dilation=1, groups=1); F.conv1d(z, z)
    F.max_pool2d(q, 2); F.max_pool2d(q, (2, 2), 1); F.max_pool2d(q, kernel_size=2, stride=1, return_indices=True)
    F.avg_pool2d(q, 2); F.avg_pool2d(q, 2, 1, 0, False, True); F.max_pool2d(q, 2, 1, 1, 1, False, True)
    F.adaptive_avg_pool2d(q, 1); F.adaptive_avg_pool2d(q, (1, None)); F.interpolate(q, 4); F.interpolate(q, (2, 4))
    F.interpolate(q, scale_factor=2, mode="bilinear", align_corners=True); F.interpolate(q, size=(4, 4), mode="nearest")
    F.pad(x, (1, 1)); F.pad(x, [1, 0, 0, 1], "constant", 2); F.pad(x, (1, 1), value=3); F.layer_norm(x, (4,))
    F.layer_norm(x, [4], v, v); F.layer_norm(x, normalized_shape=(4,), eps=1e-3); F.layer_norm(x, 4); F.batch_norm(x, v, v)
    F.batch_norm(x, None, None, training=True); F.group_norm(z, 1); F.unfold(q, 2); F.unfold(q, (2, 2), stride=1)
    F.pixel_shuffle(q.expand(1, 4, 3, 3), 2); F.scaled_dot_product_attention(z, z, z)
    F.scaled_dot_product_attention(z, z, z, is_causal=True, scale=0.5)
    F.scaled_dot_product_attention(z, z, z, None, 0.0, False, 0.5); F.pairwise_distance(x, y, 1)
    F.margin_ranking_loss(x, y, torch.ones(3, 4)); F.triplet_margin_loss(x, y, x + 1, margin=2, p=1); F.conv2d(q); F.linear(x)
    F.relu(); F.mse_loss(x)
"""


def _lines() -> list[str]:
    return list(dict.fromkeys(form.strip() for line in FORMS.splitlines() for form in line.split(";") if form.strip()))


def _tensors(package) -> dict:
    """x, y (3, 4); b bool; i, j, k, t indices; v (4), w (3), m (4, 3); s (3, 3) positive definite; z (1, 3, 4); q (1, 1, 3, 3)."""
    rng = np.random.default_rng(0)

    def of(array):
        return package.tensor(array.tolist(), dtype=package.float32)

    x, y = of(rng.random((3, 4)).astype("float32")), of(rng.random((3, 4)).astype("float32"))
    m, q = of(rng.random((4, 3)).astype("float32")), of(rng.random((1, 1, 3, 3)).astype("float32"))
    found = {"x": x, "y": y, "m": m, "q": q, "b": x > 0.5, "i": package.arange(6).reshape(2, 3), "s": m.T @ m + package.eye(3)}
    found |= {"j": package.tensor([[0, 3, 1, 2], [2, 0, 1, 3], [1, 2, 3, 0]]), "k": package.tensor([0, 2]), "t": package.tensor([0, 3, 1])}
    found |= {"v": package.tensor([1.0, 2.0, 3.0, 4.0]), "w": package.tensor([0.5, 1.5, 2.5]), "z": x.unsqueeze(0)}
    return {**found, "torch": package, "F": package.nn.functional}


def _plain(value):
    """What can be compared: (dtype, shape, elements) of tensors, and names for dtypes and devices."""
    if isinstance(value, (torch.Tensor, disttorch.Tensor)):
        return str(value.dtype).rpartition(".")[2], tuple(value.shape), value.tolist()
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return str(value).rpartition(".")[2] if isinstance(value, (torch.dtype, disttorch.dtype)) else value


def _outcome(form: str, package):
    try:
        return _plain(eval(form, _tensors(package)))
    except Exception as error:
        return type(error)


def _assert_same(ours, theirs):
    if isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs):
            _assert_same(mine, other)
    elif isinstance(theirs, (float, complex)):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5, nan_ok=True)
    else:
        assert ours == theirs


#: Forms whose outcome is not PyTorch's on purpose, with the reason.
OTHERWISE: dict[str, str] = {
    **dict.fromkeys(
        ("torch.permute(x, 1, 0)", "torch.reshape(x, 4, 3)", "torch.tile(x, 2, 1)", "torch.flip(x, 0)", "x.permute()", "x.flip()"),
        "functions take what the methods take, which is any number of sizes",
    ),
    **dict.fromkeys(("x.view()", "x.reshape()"), "no sizes are the shape of a number: RuntimeError where it does not fit"),
    **dict.fromkeys(("torch.full(2, 3)", "F.layer_norm(x, 4)"), "a number for a tuple of one"),
    **dict.fromkeys(
        ("x.add(1, 2)", "torch.addcmul(x, 2, x, y)", "torch.addmm(0.5, x[:, :3], x, m)"),
        "overloads that PyTorch warns of as deprecated: alpha, beta and value are given by name",
    ),
    "torch.mul(2, 3)": "two numbers: one operand must be a tensor",
    "x.sum(keepdims=True)": "keepdim without dim, as for all other reductions",
    "torch.as_tensor([1], torch.float32)": "the dtype may stand without its name, as documented",
    "x.clamp(max=y, min=0)": "one bound a tensor, the other a number",
    "x.to(other=x)": "the documented name beside the one that works, tensor",
    "x.clone().copy_(src=y, non_blocking=True)": "the documented name beside the one that works, other",
    "x.clone().uniform_(from_=0)": "from is a keyword of Python: another way to name it",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", _lines())
def test_form(form):
    ours, theirs = _outcome(form, disttorch), _outcome(form, torch)
    if form in OTHERWISE:
        assert ours != theirs, "there is no difference any more"
        return
    if isinstance(theirs, type):
        assert ours is theirs or (isinstance(ours, type) and issubclass(ours, theirs)), f"ours: {ours}, PyTorch's: {theirs}"
    else:
        assert not isinstance(ours, type), f"ours: {ours}, PyTorch's: {theirs}"
        _assert_same(ours, theirs)


def test_there_are_many_forms():
    assert len(_lines()) > 700
    assert set(OTHERWISE) <= set(_lines())
