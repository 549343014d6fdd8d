# Included by the project() of a wheel's build. ExecuTorch's targets make what links them look for
# libraries in the folder of the ExecuTorch it was built with, and ask for its thread pool even if
# nothing calls it. In a wheel, native_ops/_native finds all that it needs in native_ops/lib.
add_link_options(-Wl,--as-needed)
function(forget_executorch_link_options)
  foreach(target executorch::runtime executorch::threadpool executorch::etdump)
    if(TARGET ${target})
      set_property(TARGET ${target} PROPERTY INTERFACE_LINK_OPTIONS "")
    endif()
  endforeach()
endfunction()
# When find_package has defined them.
cmake_language(DEFER CALL forget_executorch_link_options)
