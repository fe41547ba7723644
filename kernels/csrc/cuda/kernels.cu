// The kernels by name. Each takes one struct of arguments by value.
#include "fourier.cuh"
#include "keyed.cuh"
#include "keyswitch.cuh"
#include "ntt.cuh"
#include "roots.cuh"

TACIT_KERNEL(tacit_binary, BinaryArguments) { binary(arguments); }
TACIT_KERNEL(tacit_negate, NegateArguments) { negate(arguments); }
TACIT_KERNEL(tacit_scale, ScaleArguments) { scale(arguments); }
TACIT_KERNEL(tacit_add_plain, PlainArguments) { add_plain(arguments); }
TACIT_KERNEL(tacit_tensor, TensorArguments) { tensor(arguments); }
TACIT_KERNEL(tacit_dot_pairs, DotArguments) { dot_pairs(arguments); }
TACIT_KERNEL(tacit_combine, CombineArguments) { combine(arguments); }
TACIT_KERNEL(tacit_copy_entries, CopyArguments) { copy_entries(arguments); }
TACIT_KERNEL(tacit_convert, ConvertArguments) { convert(arguments); }
TACIT_KERNEL(tacit_key_product, KeyArguments) { key_product(arguments); }
TACIT_KERNEL(tacit_small_remainder, RemainderArguments) { small_remainder(arguments); }
TACIT_KERNEL(tacit_fourier, FourierArguments) { fourier(arguments); }
TACIT_KERNEL(tacit_round_slots, RoundArguments) { round_slots(arguments); }
TACIT_KERNEL(tacit_reduce_doubles, ReduceArguments) { reduce_doubles(arguments); }
TACIT_KERNEL(tacit_make_roots, RootsArguments) { make_roots(arguments); }

// Two blocks of a tile per multiprocessor: 128 registers per thread.
#define TACIT_TRANSFORM(name, threads, function)                                   \
    TACIT_BOUNDED_KERNEL(name, NttArguments, threads, (threads <= 256 ? 2 : 1)) {  \
        TACIT_SHARED(shared);                                                      \
        function(arguments, shared);                                               \
    }

#if TACIT_LOG_N <= 14
TACIT_TRANSFORM(tacit_forward_whole, kWhole, (forward_whole<From::kResidues, To::kResidues>))
TACIT_TRANSFORM(tacit_forward_whole_divided, kWhole, (forward_whole<From::kResidues, To::kDivided>))
TACIT_TRANSFORM(tacit_forward_whole_keyed, kWhole, (forward_whole<From::kResidues, To::kKeyed>))
TACIT_TRANSFORM(tacit_raise_whole, kWhole, (forward_whole<From::kCentred, To::kResidues>))
TACIT_TRANSFORM(tacit_raise_whole_divided, kWhole, (forward_whole<From::kCentred, To::kDivided>))
TACIT_TRANSFORM(tacit_backward_whole, kWhole, (backward_whole<From::kResidues>))
TACIT_TRANSFORM(tacit_backward_whole_keyed, kWhole, (backward_whole<From::kKeyed>))
TACIT_TRANSFORM(tacit_backward_whole_product, kWhole, (backward_whole<From::kProduct>))
#endif
TACIT_TRANSFORM(tacit_forward_columns, kTileThreads, (forward_columns<From::kResidues>))
TACIT_TRANSFORM(tacit_raise_columns, kTileThreads, (forward_columns<From::kCentred>))
TACIT_TRANSFORM(tacit_forward_rows, kTileThreads, (forward_rows<To::kResidues>))
TACIT_TRANSFORM(tacit_forward_rows_divided, kTileThreads, (forward_rows<To::kDivided>))
TACIT_TRANSFORM(tacit_forward_rows_keyed, kTileThreads, (forward_rows<To::kKeyed>))
TACIT_TRANSFORM(tacit_backward_rows, kTileThreads, (backward_rows<From::kResidues>))
TACIT_TRANSFORM(tacit_backward_rows_keyed, kTileThreads, (backward_rows<From::kKeyed>))
TACIT_TRANSFORM(tacit_backward_rows_product, kTileThreads, (backward_rows<From::kProduct>))
TACIT_TRANSFORM(tacit_backward_columns, kTileThreads, backward_columns)
