"""The words of a step: what the compiled executor reads, and where.

A context is one array of int64. It begins with the header below; launches, items, loops, patches and the kernels'
argument records follow at the word offsets that the header gives. Contexts are per call: two threads that run one
program have one each.
"""

from __future__ import annotations

# header words
LAUNCH_COUNT = 0
COMMIT = 1  # the status cell is tested before the launch of this number
LAUNCHES = 2  # word offset of the launch records
ITEMS = 3  # word offset of the item records
INPUT_PATCHES = 4  # word offset of the patch records of inputs, then their number
INPUT_PATCH_COUNT = 5
OUTPUT_PATCHES = 6
OUTPUT_PATCH_COUNT = 7
STATUS_CHECK = 8  # the status cell: number of the check that failed plus one, or 0
STATUS_DETAIL = 9
THREAD_COUNT = 10  # address of the number of threads
WORK = 11  # address of the function that each thread of a parallel launch runs
POOL = 12  # address of the words of the pool of threads
TUPLE_ITEMS = 14  # byte offset of the first item in a tuple object
ARRAY_DATA = 15  # byte offset of the data pointer in an array object
CURRENT_LAUNCH = 16  # word offset of the record of the launch that runs in parallel, and its shares
SHARES = 17
RANGES = 18  # word offset of the range records: of outputs, inputs, state; their number
RANGE_COUNT = 19
OUTPUT_RANGES = 20  # how many are outputs
STATE_RANGES = 21  # number of the first that is state
GUARDED_RANGES = 22  # how many, from the first, may touch nothing that is written
COUNTERS = 24  # next unit of each share, each on a cache line of its own
COUNTER_STRIDE = 8
MOST_SHARES = 64
HEADER_WORDS = COUNTERS + COUNTER_STRIDE * MOST_SHARES

# what the executor returns
DONE = 0
CHECK_FAILED = 1
ARRAYS_OVERLAP = 2  # nothing has been run

# the pool's words: each that changes while threads run has a cache line of its own
POOL_OWNER = 0  # 1 while an executor uses the pool
POOL_SEQUENCE = 8  # odd while a job is open, even between jobs
POOL_ACTIVE = 16  # workers inside the job
POOL_SLEEPERS = 24  # workers that wait for a byte in the pipe
POOL_JOB = 32  # address of the context of the job
POOL_STOPPING = 40  # 1: workers return
POOL_READ = 48  # addresses of the C library's functions, and the two ends of the pipe
POOL_WRITE = 49
POOL_YIELD = 50
POOL_READ_END = 51
POOL_WRITE_END = 52
POOL_SPINS = 53  # how often a worker looks for a job before it sleeps
POOL_WORDS = 56

# launch record
LAUNCH_FIRST_ITEM, LAUNCH_END_ITEM, LAUNCH_UNITS, LAUNCH_PARALLEL, LAUNCH_LOOP = range(5)
LAUNCH_WORDS = 5
# a launch whose LAUNCH_LOOP is not 0 has no items: it is the first or the last of a loop, whose record is there
# the last two are 0, or words that hold addresses: of a bool that says whether there is a next step, and of an int64
# that takes the number of steps
LOOP_COUNT, LOOP_STEP, LOOP_BEGIN, LOOP_END, LOOP_MOVES, LOOP_MOVE_COUNT, LOOP_GOING, LOOP_STEPS = range(8)
LOOP_WORDS = 8

# move record: at the first step of its loop a word is another one plus a start; at each further step it grows by a
# step, or grows and shrinks in turn (all in bytes)
MOVE_WORD, MOVE_BASE, MOVE_START, MOVE_STEP, MOVE_ALTERNATES = range(5)
MOVE_WORDS = 5

# item record: a unit is a sub-range of `chunk` iterations
ITEM_KERNEL, ITEM_ARGS, ITEM_EXTENT, ITEM_CHUNK, ITEM_FIRST_UNIT, ITEM_END_UNIT = range(6)
ITEM_WORDS = 6

# patch record: the caller's array number `slot` goes to the word at this offset
PATCH_SLOT, PATCH_WORD = range(2)
PATCH_WORDS = 2

# range record: the address of an array stands in this word; its size in bytes
RANGE_WORD, RANGE_BYTES = range(2)
RANGE_WORDS = 2

# argument record of a matrix product
(
    GEMM_A, GEMM_B, GEMM_C, GEMM_M, GEMM_N, GEMM_K, GEMM_LDA, GEMM_LDB, GEMM_LDC, GEMM_TRANSPOSE_A, GEMM_TRANSPOSE_B,
    GEMM_STRIDE_A, GEMM_STRIDE_B, GEMM_STRIDE_C, GEMM_TILE_M, GEMM_TILE_N, GEMM_TILES_M, GEMM_TILES_N, GEMM_ROUTINE,
    GEMV_ROUTINE,
) = range(20)  # fmt: skip
GEMM_WORDS = 20

# argument record of a matrix product whose second operand lies in panels; distances of rows are in bytes
(
    PANELS_A, PANELS_B, PANELS_C, PANELS_M, PANELS_N, PANELS_K, PANELS_LDA, PANELS_LDC, PANELS_WIDTH, PANELS_COUNT,
    PANELS_BLOCK, PANELS_RUN, PANELS_LANES,
) = range(13)  # fmt: skip

# argument record of a matrix product in blocks; distances are in bytes
(
    BLOCKED_A, BLOCKED_B, BLOCKED_C, BLOCKED_M, BLOCKED_N, BLOCKED_K, BLOCKED_A_ROW, BLOCKED_B_ROW, BLOCKED_C_ROW,
    BLOCKED_STRIDE_A, BLOCKED_STRIDE_B, BLOCKED_STRIDE_C, BLOCKED_TURNED, BLOCKED_GROUP, BLOCKED_GROUPS, BLOCKED_PART,
    BLOCKED_PARTS, BLOCKED_BLOCK, BLOCKED_RUN,
) = range(19)  # fmt: skip

# argument record of products of patches; all distances are in bytes
(
    PATCH_A, PATCH_B, PATCH_C,
    OUTER_1, OUTER_1_A, OUTER_1_B, OUTER_1_C, OUTER_2, OUTER_2_A, OUTER_2_B, OUTER_2_C,
    OUTER_3, OUTER_3_A, OUTER_3_B, OUTER_3_C,
    ROWS, ROWS_A, ROWS_C, COLUMNS,
    SUM_1, SUM_1_A, SUM_1_B, SUM_2, SUM_2_A, SUM_2_B, SUM_3, SUM_3_A, SUM_3_B,
    PARTS, LANES, NARROW, VECTORS, BLOCK, BLOCKS, PANELS, PANELS_FIRST, AT_ONCE, RUN, TILE_ROWS,
) = range(39)  # fmt: skip
ROW_SIZES = 5
"""How many sizes of tiles there are words for, from TILE_ROWS on: for 1, for 2 and for 4 vectors."""

# argument record of a Winograd product; slots are in bytes, distances of matrices too
(
    WINOGRAD_X, WINOGRAD_U, WINOGRAD_Y,
    WINOGRAD_SLOT_FLAGS, WINOGRAD_SLOTS, WINOGRAD_SLOT_COUNT, WINOGRAD_SLOT_BYTES,
    WINOGRAD_HEIGHT, WINOGRAD_WIDTH, WINOGRAD_CHANNELS, WINOGRAD_FILTERS, WINOGRAD_OUT_HEIGHT, WINOGRAD_OUT_WIDTH,
    WINOGRAD_TOP, WINOGRAD_LEFT, WINOGRAD_TILES_DOWN, WINOGRAD_TILES_ACROSS, WINOGRAD_TILES,
    WINOGRAD_BLOCK, WINOGRAD_BLOCKS, WINOGRAD_GROUPS, WINOGRAD_PANELS,
    WINOGRAD_ROW, WINOGRAD_STEP, WINOGRAD_RESULT_STEP,
) = range(25)  # fmt: skip
