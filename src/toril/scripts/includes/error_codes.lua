-- The negative answers of scripts, by BullMQ's numbers; `errors.py` has a class for each.
local ERR_JOB_NOT_FOUND = -1
local ERR_LOCK_NOT_FOUND = -2
local ERR_JOB_NOT_IN_STATE = -3
local ERR_PENDING_CHILDREN = -4
local ERR_PARENT_NOT_FOUND = -5
local ERR_LOCK_MISMATCH = -6
local ERR_PARENT_TAKEN = -7
local ERR_SCHEDULER_JOB = -8
local ERR_FAILED_CHILDREN = -9
local ERR_SCHEDULER_SLOT_TAKEN = -10
local ERR_SCHEDULER_SLOTS_BUSY = -11
