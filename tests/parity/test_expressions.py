"""One expression a line, of what a user may type in a session, evaluated by PyTorch and by us: the same text comes out, or the
same type of error. `m` is the library."""

import copy
import pickle
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import disttorch

EXPRESSIONS = r"""
m.Tensor([1,2]).dtype
m.Tensor(2,3).shape
m.Tensor().shape
m.LongTensor([1.5])
m.FloatTensor(m.zeros(2).double())
m.Tensor(3.5)
m.IntTensor(np.array([1,2]))
m.ones(2).type()
m.ones(2).type('torch.LongTensor').dtype
m.ones(2).type(m.DoubleTensor).dtype
m.ones(2).type(m.int32).dtype
m.ones(2).type('x.y')
isinstance(m.ones(2),m.FloatTensor), isinstance(m.ones(2),m.LongTensor)
m.ones(2).new(3).shape
m.ones(2,dtype=m.int64).new([1,2])
f"{m.tensor(1.5)} {m.tensor(1.5):.3f} {m.tensor([1.5])} {m.tensor(2)}"
f"{m.tensor([1.5]):.3f}"
3 in m.tensor([1,2,3])
'a' in m.tensor([1])
list(reversed(m.tensor([1,2])))
len(m.tensor(1))
iter(m.tensor(1))
[int(v) for v in m.arange(3)]
m.ones(2,3).nelement(), m.ones(2,3).ndimension()
m.ones(2,3).t().stride(), m.ones(2,3)[1].storage_offset()
m.ones(2,3).t().is_contiguous(), m.ones(1,2,3,4).is_contiguous(memory_format=m.channels_last)
m.zeros(2,3)[0].untyped_storage().nbytes(), m.zeros(2,3).untyped_storage().size()
(lambda x: x.untyped_storage().data_ptr()==x[1].untyped_storage().data_ptr())(m.ones(3))
(lambda x: (x.is_set_to(x), x.is_set_to(x[:]), x.is_set_to(x[1:])))(m.ones(3))
m.ones(2).layout==m.strided, m.ones(2).is_sparse, m.ones(2).is_cpu
str(m.channels_last).split('.')[-1]
m.ones(3).resize_(2,2).shape
m.arange(6).resize_(2,2)
m.arange(6)[2:].resize_(2,2)
m.arange(6).reshape(2,3).t().resize_(6)
m.ones(2,requires_grad=True).resize_(3)
m.ones(2,2).resize_as_(m.ones(1)).shape
m.arange(3.).apply_(lambda v:v*2)
m.arange(3.).map_(m.ones(3),lambda a,b:a-b)
m.zeros(2,requires_grad=True).apply_(lambda v:v)
np.sin(m.tensor([0.,1.]))
type(np.sin(m.tensor([0.,1.])))is m.Tensor
np.add(np.ones(2),m.tensor([0.,1.]))
m.tensor([1,2]).tolist(), m.tensor(1.5).tolist()
m.tensor([1,2]).item()
m.tensor([[1]]).item()
bool(m.tensor([]))
bool(m.tensor([1,2]))
int(m.tensor(2.7)), float(m.tensor(2)), complex(m.tensor(1j))
range(m.tensor(3)), [1,2,3][m.tensor(1)]
[1,2][m.tensor(1.)]
m.tensor(1).__index__(), m.tensor(True).__index__()
m.zeros(1,2,3,4).to(memory_format=m.channels_last).shape
m.ones(2).to(m.float64,copy=True).dtype
m.ones(2).to('cpu',m.float16,True,True).dtype
m.ones(2).to(m.ones(1,dtype=m.int8)).dtype
m.ones(2).to(dtype='float64')
m.ones(2).to('float64')
m.ones(2).cpu().dtype
copy.copy(m.ones(2)), copy.deepcopy(m.ones(2,requires_grad=True)).requires_grad
pickle.loads(pickle.dumps(m.ones(2)))
m.ones(2,3).T.shape, m.ones(3).T.shape, m.ones(2,3,4).T.shape
m.ones(3).mT
m.ones(2,3,4).H
m.ones(2,2).dim_order()
m.empty_strided((2,3),(1,2)).stride()
m.ones(2,3).expand(4,2,3).stride()
m.ones(2,1).expand(2,3).add_(1)
m.ones(3).expand(2,3)[0].add_(1)
m.ones(3).as_strided((2,2),(1,1)).add_(1).shape
m.ones(2,3).fill_diagonal_(5)
m.zeros(7,3).fill_diagonal_(5,wrap=True)
m.zeros(3,3,3).fill_diagonal_(1)
m.tensor([1,2]).new_tensor([1.5]).dtype
m.zeros(2).copy_(m.tensor([1,2]))
m.zeros(2).copy_(m.ones(3))
m.zeros(2).fill_(m.ones(2))
m.zeros(2,dtype=m.int64).fill_(1.7)
m.tensor(300,dtype=m.uint8)
m.tensor(-1,dtype=m.uint8)
m.tensor('a')
m.tensor(None)
m.tensor({1})
m.tensor([[1],[1,2]])
m.tensor(2**64)
m.tensor([m.tensor(1),m.tensor(2.)]).dtype
m.tensor([np.float64(1)]).dtype
m.tensor(np.float32(1)).dtype, m.tensor(np.array([1],dtype='u2')).dtype
m.asarray([1,2],dtype=m.float32).dtype
m.asarray([1,2],copy=False)
m.asarray(m.ones(2)) , m.asarray(np.ones(2)).dtype
m.frombuffer(bytearray(b'\1\0\0\0\2\0\0\0'),dtype=m.int32)
m.frombuffer(bytearray(b'\1\0\0'),dtype=m.int32)
m.frombuffer(bytearray(b'\1\0\0\0\2\0\0\0'),dtype=m.int16,count=2,offset=2)
m.unravel_index(m.tensor([3,5]),(2,3))
m.cat([m.ones(2),m.ones(2,dtype=m.int64)]).dtype, m.cat([m.ones(2,dtype=m.float16),m.ones((1,),dtype=m.float64)]).dtype
m.cat((m.ones(1,2),m.ones(1,2)),axis=1).shape, m.stack([m.ones(2)],axis=1).shape
m.cat(m.ones(2,2))
m.cat([m.ones(2),1])
m.split(m.arange(5),[2,3])[1]
m.split(m.arange(5),[2,2])
m.chunk(m.arange(5),3)
m.arange(5).tensor_split(m.tensor([1,3]))
m.where(m.tensor([True,False]),1,0.5), m.where(m.tensor([True,False]))
m.randint(0,10,(3,),dtype=m.float16).dtype
m.randperm(4).sort()[0]
m.zeros(2).random_(3,3)
m.randint(0,300,(2,),dtype=m.uint8)
m.normal(m.zeros(2),-1.)
m.bernoulli(m.tensor([2.]))
m.multinomial(m.ones(3),4)
m.multinomial(m.ones(3),0)
m.zeros(2,dtype=m.int64).uniform_()
m.zeros(2).geometric_(1.)
(lambda x: x.exp().sum().backward() or x.grad)(m.zeros(2,requires_grad=True))
(lambda x: x.add_(1))(m.zeros(2,requires_grad=True))
(lambda x: x[0].add_(1))(m.zeros(2,requires_grad=True))
(lambda x: (lambda y: (y.add_(1), y.sum().backward()))(x.exp()))(m.zeros(2,requires_grad=True))
(lambda x: x.detach_().requires_grad)(m.zeros(2,requires_grad=True)*2)
(lambda x: x.squeeze_().shape)(m.zeros(1,2))
(lambda x: x.t_())(m.zeros(1,2,requires_grad=True))
(lambda x: x.view(3,2).detach_())(m.zeros(2,3,requires_grad=True)*1)
m.ones(2,3).view(m.float64)
m.ones(2,3).t().view(6)
m.ones(2).repeat(2,2).shape, m.ones(2).tile((2,2)).shape, m.ones(2).repeat((2,)).shape
m.ones(2,3).swapaxes(0,1).shape, m.swapdims(m.ones(2,3),0,1).shape, m.moveaxis(m.ones(2,3),0,1).shape
m.ones(2,3).permute(dims=(1,0)).shape, m.ones(2,3).reshape(shape=(3,2)).shape, m.ones(6).view(size=(2,3)).shape
m.ones(2,3).flip(dims=(0,)).shape, m.ones(2,3).unsqueeze(dim=0).shape, m.ones(2,1).squeeze(dim=1).shape
m.narrow(m.arange(5),0,-2,2), m.arange(5).narrow(0,m.tensor(1),2)
m.select(m.ones(2,3),0,2)
m.ones(2,3).unbind(0)[0].shape
m.ones(2,3).index_put_((m.tensor([0]),m.tensor([1])),m.tensor(5.))
m.ones(3).index_add_(0,m.tensor([0,0]),m.ones(2),alpha=2)
m.ones(3).scatter_(0,m.tensor([0,1]),2.)
m.ones(3).scatter_(0,m.tensor([0,1]),m.tensor([3.,4.]),reduce='multiply')
m.ones(3).scatter_(0,m.tensor([5]),2.)
m.ones(3).gather(0,m.tensor([5]))
m.ones(3).index_select(0,m.tensor([5]))
m.ones(3).masked_fill(m.tensor([True,False,True]),float('inf'))
m.ones(3,dtype=m.int64).masked_fill(m.tensor([True,False,True]),1.5)
m.ones(3).masked_fill_(m.tensor([1,0,1]),2)
m.ones(3).put_(m.tensor([0]),m.tensor([9.])), m.take(m.arange(4),m.tensor([[0,3]]))
m.nonzero(m.tensor([0,1,1])), m.tensor([0,1]).nonzero(as_tuple=True)
m.meshgrid(m.arange(2),m.arange(3),indexing='xy')[0]
m.cartesian_prod(m.tensor([1,2]),m.tensor([3,4])), m.combinations(m.tensor([1,2,3]))
m.block_diag(m.ones(1,2),m.tensor(3.))
m.diag(m.ones(2),1), m.diagflat(m.ones(2)), m.diag_embed(m.ones(2,2)).shape
m.tril_indices(3,3), m.triu_indices(2,3,1,dtype=m.int32).dtype
m.rot90(m.arange(4).view(2,2)), m.roll(m.arange(4),1), m.fliplr(m.arange(4).view(2,2))
m.repeat_interleave(m.tensor([1,2]),2), m.tensor([[1,2],[3,4]]).repeat_interleave(m.tensor([1,2]),dim=0)
m.complex(m.ones(1),m.ones(1)).real
m.atleast_2d(m.tensor(1),m.ones(2))[0].shape
m.hstack((m.tensor([1]),m.tensor([2]))), m.vstack((m.tensor([1]),m.tensor([2]))), m.column_stack((m.tensor([1]),m.tensor([2])))
m.row_stack((m.tensor([1]),m.tensor([2])))
m.ones(2,3).is_same_size(m.ones(2,3)), m.ones(2).get_device()
m.ones(2).is_shared(), m.ones(2).share_memory_().is_shared(), m.ones(2).is_pinned()
m.ones(2,2).sum_to_size(1,2)
m.ones(3).unflatten(0,(3,1)).shape, m.ones(4).unflatten(0,(-1,2)).shape
m.full((2,),True).dtype, m.full((2,),1j).dtype, m.full_like(m.ones(2),3,dtype=m.int8)
m.linspace(0,1,3,dtype=m.float16), m.logspace(0,2,3), m.eye(2,3,dtype=m.bool)
m.zeros(2,3,out=m.ones(1)).shape
m.empty(2,3,memory_format=m.contiguous_format).shape, m.zeros_like(m.ones(2,3).t()).stride()
m.ones(2,3).clone(memory_format=m.contiguous_format).stride(), m.ones(2,3).t().clone().stride()
m.ones(2,3).t().contiguous().stride()
m.scalar_tensor(3).dtype
m.tensor([1.,2.]).__array__(), m.tensor([1,2]).numpy().dtype
m.tensor([1.,2.],requires_grad=True).numpy()
m.tensor([1.,2.]).data.requires_grad
m.arange(3).flip(0)[::2]
m.view_as_real(m.ones(2,dtype=m.complex64)).shape, m.view_as_complex(m.ones(2,2)).dtype
m.ones(4,dtype=m.float32).view(m.int32), m.ones(2,dtype=m.float64).view(m.int16).shape
m.tensor([3,1,2]).argsort()
m.zeros(3)[1:].storage_offset()
m.is_tensor(m.ones(1)), m.is_tensor(1)
m.tensor(5).is_nonzero()
m.manual_seed(3).initial_seed(), m.initial_seed()
m.Generator().manual_seed(5).initial_seed(), m.Generator(device='cpu').device.type
m.tensor([1,2]).unique()
""".strip().split("\n")


def text(value):
    if isinstance(value, (torch.Tensor, disttorch.Tensor)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return type(value).__name__[:5] + str([text(v) for v in value])  # PyTorch has tuples of its own
    return repr(value)


def outcome(expression, module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = text(eval(expression, {"m": module, "np": np, "copy": copy, "pickle": pickle}))
        except Exception as error:
            return type(error).__name__
    return " ".join(found.replace("disttorch.", "torch.").split())


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expression(expression):
    assert outcome(expression, disttorch) == outcome(expression, torch)
